"""Fixtures of `serving_app`."""

from serving_app import make as make
from serving_app import talker as talker
