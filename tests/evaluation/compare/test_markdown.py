"""The Markdown of made-up numbers is the file beside this one; the page holds the same tables."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srseg.evaluation.compare.markdown import markdown_text, table_text
from srseg.evaluation.compare.page import html_text
from srseg.evaluation.compare.report import Table, estimate_text, p_text
from srseg.evaluation.compare.statistics import Estimate
from srseg.evaluation.compare.summary import Summary, summarise
from tests.evaluation.compare.synthetic import comparison_of, scores_of

GOLDEN = Path(__file__).with_name("golden.md")
NAN = float("nan")


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Seven cases, one of which lacks a label; steps, marks and signs of all kinds."""
    spread = np.linspace(-0.03, 0.03, 7)

    def level(dice, gain=None, **known):
        rows = [{"1": dice + d, "2": dice - d / 2} for d in spread]
        rows[3]["2"] = NAN
        return scores_of(rows, () if gain is None else [gain + d for d in spread], **known)

    methods = {
        "SRSegTrainer": level(0.86, 1.5),
        "PFSeg": level(0.82, 1.0),
        "seg_only": level(0.86, steps=1400),
        "lr_then_upsample": level(0.80),
        "oracle": level(0.90, reads="hr", batch_size=1, peak_memory_gib=2.5),
        "interpolate_bspline": level(0.95, 0.0, reads="true labels"),
    }
    return summarise(comparison_of(methods))


def test_the_markdown_is_the_golden_file(summary):
    assert markdown_text(summary) == GOLDEN.read_text(encoding="utf-8")


def test_the_page_stands_for_itself(summary):
    text = html_text(summary)
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text.replace("http-equiv", "")
    assert "<td>oracle †</td>" in text
    assert "<tr class=reference><td>SRSegTrainer</td>" in text
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(images) == 5  # Dice and gain as interval and dots, and the gap
    for data in images:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.shape[1] > 800
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # something is drawn


def test_one_case_and_one_method_make_a_page():
    lonely = summarise(comparison_of({"oracle": scores_of([{"1": 0.8, "2": 0.7}], reads="hr")}))
    assert "Reference: none (no method reads LR images only)." in markdown_text(lonely)
    assert "1 case of the fold" in html_text(lonely)


def test_names_are_escaped():
    table = Table("t", ("method", "p"), (("a|b", "< 0.001"),))
    assert "a\\|b" in table_text(table)
    name = "<b>&"
    page = html_text(summarise(comparison_of({name: scores_of([{"1": 0.8, "2": 0.7}])})))
    assert "&lt;b&gt;&amp;" in page
    assert name not in page


def test_numbers_as_text():
    assert estimate_text(Estimate(0.86749, 0.8611, 0.874), 3) == "0.867 [0.861, 0.874]"
    assert estimate_text(Estimate(0.5), 2, "+") == "+0.50"
    assert estimate_text(Estimate(-0.001, -0.002, 0.003), 2, "+") == "+0.00 [+0.00, +0.00]"
    assert estimate_text(Estimate(-0.001), 2) == "0.00"
    assert estimate_text(Estimate(NAN), 2) == "-"
    assert [p_text(p) for p in (0.0004, 0.0234, 1.0, NAN)] == ["< 0.001", "0.023", "1.000", "-"]
