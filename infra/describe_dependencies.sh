#!/usr/bin/env bash
# Writes into the folder $1 what the function and the command line are made of: a bill of materials (CycloneDX) for each
# architecture, and the licences of the dependencies with their texts. $2 and following: the architectures.
set -euo pipefail
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
tools=.local/cargo/bin
# The tool writes the time of this, and no random serial number.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# The tool writes one file beside each Cargo.toml of the workspace.
name=release-input
remove_files() { git ls-files --others --ignored --exclude="$name*.json" -z | xargs -0 rm -f; }
trap remove_files EXIT
for architecture in "$@"; do
    target=${architecture/arm64/aarch64}-unknown-linux-gnu
    "$tools/cargo-cyclonedx" cyclonedx --quiet --format json --no-build-deps --target "$target" --override-filename "$name"
    mv "$name.json" "$folder/whatsapp-ingress-$architecture.cdx.json"
    mv "crates/cli/$name.json" "$folder/ingress-$architecture.cdx.json"
done
"$tools/cargo-bundle-licenses" bundle-licenses --format yaml --output "$folder/whatsapp-ingress-licences.yml"
(cd crates/cli && "../../$tools/cargo-bundle-licenses" bundle-licenses --format yaml --output "$folder/ingress-licences.yml")
