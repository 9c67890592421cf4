"""Operate an MLflow tracking server over SSH, one task at a time."""

from __future__ import annotations
