"""What a census record must be: the one truth about its columns. A question mark in the files is a missing value."""

import pandera.polars as pa
import polars as pl
from pandera.polars import Field


class Person(pa.DataFrameModel):
    """One adult of the 1994 census, and which of the two official files the record came in."""

    age: pl.Int64 = Field(ge=16, le=120, title="Age", description="Age in years.")
    workclass: pl.String = Field(nullable=True, title="Employer", description="Kind of employer.")
    fnlwgt: pl.Int64 = Field(ge=0, description="How many people of the country the record stands for.")
    education: pl.String = Field(title="Education", description="Highest level of education.")
    education_num: pl.Int64 = Field(ge=1, le=16, title="Education rank", description="The level as a rank, 1 to 16.")
    marital_status: pl.String = Field(title="Marital status", description="Marital status.")
    occupation: pl.String = Field(nullable=True, title="Occupation", description="Kind of occupation.")
    relationship: pl.String = Field(title="Relationship", description="Place in the household.")
    race: pl.String = Field(title="Race", description="Race, as the census put it.")
    sex: pl.String = Field(isin=["Female", "Male"], title="Sex", description="Sex, as the census put it.")
    capital_gain: pl.Int64 = Field(ge=0, le=99_999, title="Capital gain", description="Capital gains, dollars.")
    capital_loss: pl.Int64 = Field(ge=0, le=99_999, title="Capital loss", description="Capital losses, dollars.")
    hours_per_week: pl.Int64 = Field(ge=1, le=99, title="Hours", description="Hours worked in a week.")
    native_country: pl.String = Field(nullable=True, title="Country of birth", description="Country of birth.")
    income: pl.String = Field(isin=["<=50K", ">50K"], title="Income", description="Income of the year, dollars.")
    source_label: pl.String = Field(isin=["train", "test"], description="The official file: train or test.")
