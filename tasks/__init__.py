"""Operate an MLflow tracking server over SSH, one task at a time."""
