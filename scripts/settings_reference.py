"""Writes the reference of the settings, as Markdown, from `easyml_server.settings`.

Run by `make generate`; prints to standard output.
"""

from __future__ import annotations

from pydantic_core import PydanticUndefined

from easyml_server.settings import Settings

COMPUTED = {
    "data_dir": "`$XDG_DATA_HOME/easyml`, else `~/.local/share/easyml`",
    "workers": "half the processors, at least 1",
}


def default_of(name: str) -> str:
    if name in COMPUTED:
        return COMPUTED[name]
    value = Settings.model_fields[name].default
    if value is PydanticUndefined:
        raise SystemExit(f"say in COMPUTED what the default of {name} is")
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def main() -> None:
    print("# Settings\n")
    print("Made from `easyml_server/settings.py` by `make generate`. Each can be set in the environment, or under its")
    print("name in lower case without `EASYML_` in `easyml.toml` (in the working directory, or what `EASYML_CONFIG`")
    print("names); the environment wins. Sizes are bytes, times in the unit of the name. `easyml-server config show")
    print("--origin` prints what is in force, and why.\n")
    print("| Setting | Default | What it does |")
    print("|---|---|---|")
    for name, field in Settings.model_fields.items():
        print(f"| `EASYML_{name.upper()}` | {default_of(name)} | {field.description} |")


if __name__ == "__main__":
    main()
