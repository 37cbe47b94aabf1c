"""Package metadata of srseg; tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "srseg" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)
COMMANDS = (
    "plan_and_preprocess",
    "extract_fingerprint",
    "plan",
    "preprocess",
    "train",
    "predict",
    "register",
    "simulate",
    "convert_pairs",
    "align",
    "evaluate",
    "compare",
    "adapt",
    "doctor",
    "demo",
)

setup(
    name="srseg",
    version=VERSION,
    description="Joint super-resolution and segmentation of medical images, in nnU-Net's manner",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["srseg", "srseg.*"]),
    package_data={"srseg.training": ["methods/*.json"]},
    install_requires=[
        "nnunetv2>=2.8.1,<2.9",  # cap: we override private names, held by contract tests
        "torch>=2.4",
        "batchgenerators>=0.25.1",
        "batchgeneratorsv2>=0.3.6",
        "dynamic-network-architectures>=0.4.4,<0.5",  # cap: as for nnunetv2
        "acvl-utils>=0.2.6",
        "SimpleITK>=2.3",
        "nibabel>=5.2",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "numpy>=1.26",
        "blosc2>=3.0",
        "tqdm>=4.66",
        "matplotlib>=3.8",
    ],
    extras_require={
        "demo": ["nilearn>=0.11"],  # its wheel carries the MNI152 templates the demo is made of
        "test": ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.5", "nilearn>=0.11"],
        "dev": ["ruff>=0.8", "pre-commit>=3.7"],
    },
    entry_points={
        "console_scripts": [f"srseg_{name}=srseg.cli.{name}:main" for name in COMMANDS],
    },
)
