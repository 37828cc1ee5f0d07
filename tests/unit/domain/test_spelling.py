"""Misspelt names are answered with the ones that exist."""

from __future__ import annotations

from easyml_server.domain.spelling import SHOWN_CHARACTERS, way_out


def test_a_close_name_is_proposed_whatever_its_case() -> None:
    assert way_out("Prise", ["size", "PRICE"]) == "did you mean 'PRICE'?"


def test_names_are_listed_where_none_is_close() -> None:
    assert way_out("x", ["size", "price"]) == "there are 'size', 'price'."
    assert way_out("x", []) == "there are none yet."


def test_a_long_list_is_cut_and_counted() -> None:
    said = way_out("?", [f"column_{number:04}" for number in range(1000)])
    assert len(said) < SHOWN_CHARACTERS + 50
    assert said.endswith("more.")
