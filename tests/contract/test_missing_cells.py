"""One list of what a missing cell looks like: in the contract, where files are read, and in the command line."""

from __future__ import annotations

import re

from easyml_client.cli.rows import NO_VALUE
from easyml_server.ml.column_types import NULL_SPELLINGS
from tests.servers import ROOT


def test_the_contract_the_reader_and_the_command_line_agree_on_missing_cells() -> None:
    text = (ROOT / "protos/easyml/v1/dataset_service.proto").read_text()
    comment = text.partition("// ReadOptions say")[2].partition("message ReadOptions")[0]
    documented = {"", *re.findall(r'"([^"]+)"', re.sub(r"\n// ", " ", comment))}
    assert documented == set(NULL_SPELLINGS) == NO_VALUE
