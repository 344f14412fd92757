#!/bin/sh
# Builds the XDP object from its source. Needs clang and llvm-strip (Debian: clang, llvm). Writes to $1, or in place.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/policer.bpf.o}
cd "$here"
# The BTF names the source by the path it was given, so the object does not depend on where the tree lies. From version 3 on
# the instruction set has compare-and-exchange (Linux 5.12).
clang -O2 -g -mcpu=v3 -Wall -Wextra -Werror -ffile-prefix-map="$here=." -target bpf -c policer.bpf.c -o "$out"
llvm-strip -g "$out"
