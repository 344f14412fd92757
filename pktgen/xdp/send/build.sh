#!/bin/sh
# Builds the XDP object from its source. Needs clang and llvm-strip (Debian: clang, llvm). Writes to $1, or in place.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/send.bpf.o}
cd "$here"
# The BTF names the source by the path it was given, so the object does not depend on where the tree lies.
clang -O2 -g -Wall -Wextra -Werror -ffile-prefix-map="$here=." -target bpf -mcpu=v3 -c send.bpf.c -o "$out"
llvm-strip -g "$out"
