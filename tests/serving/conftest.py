"""Fixtures of `serving_app` and of `page_browser`."""

from page_browser import address as address
from page_browser import browser as browser
from page_browser import lone_page as lone_page
from page_browser import page as page
from serving_app import make as make
from serving_app import talker as talker
