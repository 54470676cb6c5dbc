# shellcheck shell=bash
# What the scripts in this folder share. They run from the root of the repository and write to
# target/dist only.
# shellcheck disable=SC2034 # the scripts use these variables
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=segment-gateway
dist=target/dist
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# What builds and runs images: docker or podman.
container_tool=${CONTAINER_TOOL:-docker}

die() {
    echo "release: $*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null 2>&1 || die "$1 is missing: $2"
}

# Archives carry the time of the commit and not that of the build, so that two builds are alike.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=0
fi
export SOURCE_DATE_EPOCH

# Prints the section of this version in the changelog, without its title.
changes() {
    awk -v title="## [$1]" 'index($0, "## ") == 1 { inside = index($0, title) == 1; next } inside' CHANGELOG.md
}

# Writes manual page and completions, as the program prints them, below a prefix such as /usr.
generated_files() {
    local program=$1 share=$2/share
    mkdir -p "$share/man/man1" "$share/bash-completion/completions" \
        "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    "$program" man | gzip -9n >"$share/man/man1/$name.1.gz"
    "$program" completions bash >"$share/bash-completion/completions/$name"
    "$program" completions zsh >"$share/zsh/vendor-completions/_$name"
    "$program" completions fish >"$share/fish/vendor_completions.d/$name.fish"
}
