"""Income above 50,000 dollars in the 1994 census: the table of contents of this pipeline."""

from __future__ import annotations

from ferroflow.core.spec import (
    MLP,
    Baseline,
    BeatsBaseline,
    BeatsChampion,
    Boosting,
    ByColumn,
    Classification,
    FixedFiles,
    InputDrift,
    LikeBefore,
    NoWorseSlice,
    NullShare,
    PipelineSpec,
    Retrain,
    RowCount,
    Schedules,
    Skew,
    Source,
    SourceFile,
    Staleness,
    Tuning,
)
from pipelines.income.derive import COLUMNS, derive
from pipelines.income.features import means
from pipelines.income.schema import Person

_ARCHIVE = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"

pipeline = PipelineSpec(
    name="income",
    description="Whether an adult of the 1994 census earned more than 50,000 dollars a year.",
    source=Source(
        files=FixedFiles(
            (
                SourceFile(f"{_ARCHIVE}/adult.data", "adult/adult.data", label="train"),
                SourceFile(f"{_ARCHIVE}/adult.test", "adult/adult.test", skip_rows=1, label="test"),
            )
        ),
        format="csv",
        columns=COLUMNS,
        null_values=("", "?"),
    ),
    derive=derive,
    schema=Person,
    rules=(
        RowCount(at_least=1_000),
        NullShare(column="workclass", at_most=0.1),
        NullShare(column="occupation", at_most=0.1),
        NullShare(column="native_country", at_most=0.05),
        LikeBefore(columns=("age", "education", "hours_per_week"), severity="warning"),
    ),
    inputs=(
        "age",
        "workclass",
        "education",
        "education_num",
        "marital_status",
        "occupation",
        "relationship",
        "race",
        "sex",
        "capital_gain",
        "capital_loss",
        "hours_per_week",
        "native_country",
    ),
    categorical=(
        "workclass",
        "education",
        "marital_status",
        "occupation",
        "relationship",
        "race",
        "sex",
        "native_country",
    ),
    features=(means,),
    target=Classification("income", positive=">50K"),
    candidates=(Boosting(), MLP()),
    baseline=Baseline(by=("education", "relationship")),
    split=ByColumn(column="source_label", test="test"),
    tuning=Tuning(trials=10, seconds=45),
    gates=(BeatsBaseline(), BeatsChampion(confidence=0.95), NoWorseSlice("sex")),
    monitors=(InputDrift(), Staleness("365d"), Skew()),
    retrain=Retrain(cooldown="1d", per_week=1, min_new_rows=2_000),
    schedules=Schedules(ingest=None, monitor="0 6 * * *"),
    owner="ferroflow",
)
