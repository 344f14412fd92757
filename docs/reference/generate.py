#!/usr/bin/env python3
"""Writes the pages of this directory from the program itself.

    docs/reference/generate.py WEIR [DIRECTORY] [--metrics FILE]

WEIR is the binary, DIRECTORY where the pages go (this one). metrics.md is written only if FILE is given: a scrape of a gateway with
traffic, `curl --unix-socket /run/weir/api.sock http://weir/metrics`. A test writes all of them elsewhere and compares.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MADE = "<!-- Written by docs/reference/generate.py: change the program, then run it. -->\n\n"


def ask(weir, *words):
    """What the program prints, as on a terminal of 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run([weir, *words], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def cli(weir):
    page = "# Command line\n\n" + MADE
    page += "The same is in `man weir`, `man weir-run` and so on, and in `weir COMMAND --help`.\n\n"
    overview = ask(weir, "--help")
    page += fenced(overview)
    for command in re.findall(r"^  ([a-z-]+) ", overview.split("Commands:")[1].split("Options:")[0], re.M):
        page += f"\n## weir {command}\n\n" + fenced(ask(weir, command, "--help"))
    return page


def fenced(text):
    lines = "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
    return f"```text\n{lines}\n```\n"


def configuration(weir):
    schema = json.loads(ask(weir, "schema"))
    page = "# Configuration keys\n\n" + MADE
    page += (
        "From the JSON Schema (`weir schema`, for editors). Every key in a file with its default:\n"
        "[config/examples/full](../../config/examples/full/weir.toml). How to write contracts: [how-to](../how-to/contracts.md).\n"
    )
    tables = list(walk(schema, schema, "", comments()))
    for header, text, rows in tables:
        page += f"\n## {header}\n\n"
        page += f"{one_line(text)}\n\n" if text else ""
        page += "| key | value | |\n| --- | --- | --- |\n"
        page += "".join(f"| `{key}` | {kind} | {what} |\n" for key, kind, what in rows)
    return page


def comments():
    """What the example says of each key, as {(table, key): text}: for keys that the schema does not explain."""
    said, table = {}, ""
    for path in sorted((REPOSITORY / "config/examples/full").rglob("*.toml"), reverse=True):
        for line in path.read_text().splitlines():
            header = re.match(r"\[+([a-z.]+)\]+$", line)
            key = re.match(r"([a-z_]+) = .*?# (.*)", line)
            if header:
                table = header[1]
            elif key:
                said.setdefault((table, key[1]), key[2])
    return said


def resolve(schema, node):
    """The node itself behind references and "or null"."""
    while True:
        if "$ref" in node:
            kept = {key: value for key, value in node.items() if key != "$ref"}
            node = {**schema[node["$ref"].split("/")[1]][node["$ref"].split("/")[2]], **kept}
        elif len(node.get("allOf", [])) == 1:
            kept = {key: value for key, value in node.items() if key != "allOf"}
            node = {**node["allOf"][0], **kept}
        elif "anyOf" in node and any(part.get("type") == "null" for part in node["anyOf"]):
            rest = [part for part in node["anyOf"] if part.get("type") != "null"]
            kept = {key: value for key, value in node.items() if key != "anyOf"}
            node = {**rest[0], **kept} if len(rest) == 1 else {**kept, "oneOf": rest}
        else:
            return node


def walk(schema, node, path, said):
    """Yields (header, description, rows) of a table and of those inside it."""
    inner, rows = [], []
    for key, value in node.get("properties", {}).items():
        own = value.get("description")
        value = resolve(schema, value)
        items = resolve(schema, value.get("items", {})) if isinstance(value.get("items"), dict) else {}
        name = f"{path}.{key}".lstrip(".")
        if "properties" in value:
            inner.append((f"[{name}]", name, value))
        elif "properties" in items:
            inner.append((f"[[{name}]]", name, items))
        else:
            required = "Required. " if key in node.get("required", []) else ""
            what = one_line(own or value.get("description", ""))
            # What stands at a type is of all keys of this type: the example says more.
            if not own:
                parts = said.get((path, key), what.rstrip(".")).split("; ")
                # What the example's own value is, and what is said here already.
                parts = [part for part in parts if part != "required" and not part.startswith("RFC ")]
                what = sentence("; ".join(parts))
            if value.get("default") is not None:
                what += f" Default: `{json.dumps(value['default'], ensure_ascii=False)}`."
            rows.append((key, kind(schema, value), (required + what).strip()))
    header = node.get("header", "Top level")
    if rows:
        yield header, node.get("description", "") if path else "", rows
    for header, name, value in inner:
        yield from walk(schema, {**value, "header": f"`{header}`"}, name, said)


def sentence(text):
    names = ("srtcm", "trtcm")
    letter = text[:1] if text.startswith(names) else text[:1].upper()
    return f"{letter}{text[1:]}." if text else ""


def kind(schema, value):
    value = resolve(schema, value)
    for several in ("oneOf", "anyOf"):
        if several in value:
            kinds = [kind(schema, part) for part in value[several]]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return " or ".join(f"`{json.dumps(item)}`" for item in value["enum"])
    types = value.get("type", "value")
    types = [types] if isinstance(types, str) else types
    words = [{"array": "list of", "boolean": "`true` or `false`"}.get(name, name) for name in types if name != "null"]
    text = " or ".join(words)
    if "array" in types and "items" in value:
        text += " " + kind(schema, value["items"])
    bounds = [value.get("minimum"), value.get("maximum")]
    if all(bound is not None for bound in bounds):
        text += f", {bounds[0]:g} to {bounds[1]:g}" if bounds[1] < 1e9 else ""
    return text


def one_line(text):
    return " ".join(text.split()).replace("|", "\\|")


def metrics(scrape):
    page = "# Metrics\n\n" + MADE
    page += (
        "What `/metrics` has, from a scrape. Counters are since the start of weir; bytes of contracts are those of the counted layer,\n"
        "bytes of queues are Ethernet frames without FCS. Labels are bounded by the configuration. How to scrape:\n"
        "[monitoring](../how-to/monitoring.md). A `reason` of a drop is there once it has happened; a family of which that scrape had no\n"
        "sample stands here without labels.\n\n| metric | type | labels | |\n| --- | --- | --- | --- |\n"
    )
    families, order = {}, []
    for line in scrape.splitlines():
        described = re.match(r"# (HELP|TYPE) (\S+) (.*)", line)
        if described:
            word, name, text = described.groups()
            if name not in families:
                families[name] = {"labels": {}}
                order.append(name)
            families[name][word] = text
            continue
        sample = re.match(r"([a-zA-Z_:0-9]+)(\{.*\})? ", line)
        if sample:
            family = families[order[-1]]
            family["name"] = re.sub(r"_(bucket|sum|count)$", "", sample[1]) if family.get("TYPE") == "histogram" else sample[1]
            for label in re.findall(r"[{,]([a-z_]+)=", sample[2] or ""):
                family["labels"][label] = None
    for name in sorted(order):
        family = families[name]
        labels = ", ".join(f"`{label}`" for label in family["labels"])
        page += f"| `{family.get('name', name)}` | {family.get('TYPE', '')} | {labels} | {one_line(family.get('HELP', ''))} |\n"
    return page


def api(weir):
    document = json.loads(ask(weir, "schema", "--api"))
    page = "# HTTP API\n\n" + MADE
    page += (
        one_line(document["info"].get("description", "")) + "\n\n"
        "The whole document, with the form of every answer, is [openapi.json](../openapi.json) (`weir schema --api`).\n"
    )
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            if not isinstance(call, dict):
                continue
            page += f"\n## {method.upper()} {path}\n\n"
            page += one_line(call.get("description") or call.get("summary", "")) + "\n\n"
            rows = [one(document, part) for part in call.get("parameters", [])]
            if rows:
                page += "| parameter | value | |\n| --- | --- | --- |\n"
                for row in rows:
                    what = one_line(row.get("description", ""))
                    page += f"| `{row['name']}` | {value(row.get('schema', {}))} | {what} |\n"
                page += "\n"
            page += "| status | answer |\n| --- | --- |\n"
            for status, answer in call["responses"].items():
                page += f"| {status} | {one_line(one(document, answer).get('description', ''))} |\n"
    return page


def value(schema):
    words = [f"`{choice['const']}`" for choice in schema.get("oneOf", []) if "const" in choice]
    return ", ".join(words) or schema.get("type", "")


def one(document, node):
    while "$ref" in node:
        here = document
        for step in node["$ref"].lstrip("#/").split("/"):
            here = here[step]
        node = here
    return node


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weir")
    parser.add_argument("directory", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("--metrics", type=pathlib.Path)
    wanted = parser.parse_args()
    weir = os.path.abspath(wanted.weir)
    pages = {"cli.md": cli(weir), "configuration.md": configuration(weir), "api.md": api(weir)}
    if wanted.metrics:
        pages["metrics.md"] = metrics(wanted.metrics.read_text())
    for name, text in pages.items():
        (wanted.directory / name).write_text(text)


main()
