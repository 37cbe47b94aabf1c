"""All methods in one table: predict, evaluate, compare with paired statistics."""
