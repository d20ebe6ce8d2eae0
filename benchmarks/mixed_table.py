"""A seeded table of numbers, categories, dates and gaps: customers who leave or stay."""

from __future__ import annotations

import numpy as np
import pandas as pd

CITIES = 60  # the rarest have some 20 of 5,000 rows
TARGET = "churned"


def make_mixed_table(rows: int = 5_000, seed: int = 0) -> pd.DataFrame:
    """Make a table whose target depends on its columns in ways that a linear model sees, and in others.

    Age, income, months, plan and city add up. What many calls mean depends on the plan (an interaction), the month of
    joining acts on a circle, and gaps in the income are no accident.
    """
    draw = np.random.default_rng(seed)
    age, income = draw.integers(18, 80, rows), draw.lognormal(7.8, 0.5, rows)
    calls, months = draw.gamma(2.0, 2.0, rows), draw.integers(1, 61, rows)
    plan = draw.choice(["basic", "plus", "pro"], rows, p=[0.5, 0.3, 0.2])
    shares = 1 / np.arange(1, CITIES + 1)
    city = draw.choice(CITIES, rows, p=shares / shares.sum())
    joined = pd.Timestamp("2019-01-01") + pd.to_timedelta(draw.integers(0, 5 * 365, rows), unit="D")
    has_gap = draw.random(rows) < 0.15
    score = (
        0.02 * (age - 45)
        - 0.9 * np.log(income / 2_400)
        + np.where(plan == "pro", -1, 1) * 0.45 * (calls - 4)
        + draw.normal(0, 0.8, CITIES)[city]
        + 0.8 * np.cos(2 * np.pi * (joined.month.to_numpy() - 1) / 12)
        - 0.02 * months
        + 0.9 * has_gap
        - 1.2
    )
    has_left = draw.random(rows) < 1 / (1 + np.exp(-score))
    columns = {
        "age": age,
        "income": pd.Series(income.round(2)).mask(has_gap),
        "calls": calls.round(1),
        "months": pd.Series(months).mask(draw.random(rows) < 0.05),
        "plan": pd.Series(plan).mask(draw.random(rows) < 0.03),
        "city": [f"city {number}" for number in city],
        "joined": joined.strftime("%Y-%m-%d"),
        TARGET: np.where(has_left, "yes", "no"),
    }
    return pd.DataFrame(columns)
