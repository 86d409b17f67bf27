# SPDX-License-Identifier: Apache-2.0
"""Writes configuration files from dictionaries: scalars, arrays, inline tables, and lists of tables."""

import json


def dumps(document):
    """A TOML document. A list of dictionaries becomes `[[name]]` tables; values that are None are left out."""
    plain, tables = [], []
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"\n[[{name}]]\n{_pairs(entry)}" for entry in value]
        elif isinstance(value, dict):
            tables.append(f"\n[{name}]\n{_pairs(value)}")
        elif value is not None and value != []:
            plain.append(f"{name} = {_value(value)}\n")
    return "".join(plain + tables)


def _pairs(entry):
    return "".join(f"{name} = {_value(value)}\n" for name, value in entry.items() if value is not None)


def _value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return json.dumps(str(value))
