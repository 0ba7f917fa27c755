"""The page that all reports are built on."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
import pytest
from jinja2 import DictLoader, UndefinedError
from markupsafe import Markup

from autotune.report import page

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of somebody else's, as the compare page is."""
    from jinja2 import ChoiceLoader

    environment = page._templates()
    text = ("{% extends 'page.html.j2' %}{% block title %}{{ name }}{% endblock %}"
            "{% block main %}<h1>{{ name }}</h1>{{ figure }}{% endblock %}")
    monkeypatch.setattr(environment, "loader", ChoiceLoader([DictLoader({"child": text}), environment.loader]))


@pytest.mark.usefixtures("child")
def test_text_is_escaped_and_a_figure_is_kept_apart() -> None:
    figure = go.Figure(go.Scatter(x=[1.0], y=[2.0], name=HOSTILE), layout={"template": "none"})
    html = page.render("child", name=HOSTILE, figure=page.figure_html(figure, "one", HOSTILE))
    assert "<img" not in html
    assert "&lt;img src=x" in html
    found = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert found is not None
    assert json.loads(found[1])["data"][0]["name"] == HOSTILE


@pytest.mark.usefixtures("child")
def test_plotly_is_in_a_page_once_and_only_if_a_figure_is() -> None:
    figure = go.Figure(layout={"template": "none"})
    two = Markup("").join([page.figure_html(figure, "one"), page.figure_html(figure, "two")])
    assert page.render("child", name="", figure=two).count('id="plotly"') == 1
    assert len(page.render("child", name="", figure=two)) < 2_500_000
    assert len(page.render("child", name="", figure="")) < 50_000


@pytest.mark.usefixtures("child")
def test_a_page_may_load_nothing() -> None:
    html = page.render("child", name="n", figure="")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;")
    assert "unsafe-eval" not in policy[1]
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", html)


@pytest.mark.usefixtures("child")
def test_what_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="figure"):
        page.render("child", name="n")
