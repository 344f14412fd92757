"""Reads `cargo metadata` from stdin; fails when a dependency has a licence that is not on the list."""

import json
import re
import sys

# Permissive licences that MIT OR Apache-2.0 code may depend on.
ALLOWED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "0BSD",
    "Unicode-3.0", "CC0-1.0", "Unlicense", "BSL-1.0", "MIT-0",
}


def allowed(expression: str) -> bool:
    """An SPDX expression without nesting deeper than one pair of parentheses: OR needs one side, AND both."""
    expression = expression.replace("/", " OR ").strip()
    grouped = re.sub(r"\(([^()]*)\)", lambda m: "MIT" if allowed(m.group(1)) else "REFUSED", expression)
    return any(all(part.strip() in ALLOWED for part in side.split(" AND ")) for side in grouped.split(" OR "))


packages = json.load(sys.stdin)["packages"]
refused = [f"{p['name']} {p['version']}: {p['license']}" for p in packages if not allowed(p["license"] or "none")]
print(f"{len(packages)} packages, {len(refused)} with a licence that is not on the list")
sys.exit("\n".join(refused) if refused else 0)
