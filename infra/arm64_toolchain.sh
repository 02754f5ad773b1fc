#!/usr/bin/env bash
# Unpacks into the folder $1 a Rust compiler for arm64 and an emulator, from packages of Debian. Installs nothing and needs no root.
#
#   rustc        the compiler, for this computer (x86_64) and for aarch64-unknown-linux-gnu. It has no linker: use cargo-lambda.
#   run PROGRAM  runs a program for arm64
#
# apt verifies the packages with Debian's keyring. The mirror is that of this computer's apt, or DEBIAN_MIRROR.
set -euo pipefail

SUITE=trixie
RUST=1.96
LLVM=22
HOST_PACKAGES=(
    rustc-web libstd-rust-web-dev "libstd-rust-web-$RUST" qemu-user
    # The libraries of the compiler.
    "libllvm$LLVM" libc6 libedit2 libffi8 libgcc-s1 libstdc++6 libxml2 libz3-4 libzstd1 zlib1g libtinfo6 libbsd0 libmd0 liblzma5
)
ARM64_PACKAGES=(libstd-rust-web-dev libc6 libgcc-s1)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
    echo "arm64 toolchain: $*" >&2
    exit 1
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the packages are for Linux on x86_64, not for $(uname -sm)"
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || fail "requires $tool. Without it, install the Rust target instead: rustup target add aarch64-unknown-linux-gnu"
done
[ -r "$KEYRING" ] || fail "requires Debian's keyring, $KEYRING: install the package debian-archive-keyring"

# The mirror of the suite that is installed here, by its name or as `stable`. Only a Debian has one.
if [ -z "${DEBIAN_MIRROR:-}" ]; then
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    DEBIAN_MIRROR=$(apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' \
        | awk -v suite="$codename" '($1 == suite || $1 ~ /^(old)*stable$/) && $2 == "main" { uri = uri ? uri : $3 } END { print uri }')
    if [ -z "$DEBIAN_MIRROR" ] || ! grep -qx 'ID=debian' /etc/os-release; then
        fail "apt has no mirror of Debian on this computer: set DEBIAN_MIRROR"
    fi
fi

[ $# = 1 ] || fail "requires one argument, the folder"
mkdir -p "$1.new"
folder=$(cd "$1.new" && pwd)
rm -rf "${folder:?}"/*
target=${folder%.new}
mkdir -p "$folder"/apt/{lists,archives}/partial "$folder"/{packages,host,arm64,sysroot/lib/rustlib}
: >"$folder/apt/status"
cat >"$folder/apt/debian.sources" <<END
Types: deb
URIs: $DEBIAN_MIRROR
Suites: $SUITE
Components: main
Architectures: amd64 arm64
Signed-By: $KEYRING
END
# apt reads this after its own configuration, which may have a proxy.
cat >"$folder/apt/apt.conf" <<END
Dir::Etc::SourceList "$folder/apt/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$folder/apt";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
APT::Architecture "amd64";
#clear APT::Architectures;
#clear APT::Default-Release;
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Check-Valid-Until "true";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
END
apt-get --config-file="$folder/apt/apt.conf" --quiet=2 update
(cd "$folder/packages" && apt-get --config-file="$folder/apt/apt.conf" --quiet=2 download "${HOST_PACKAGES[@]/%/:amd64}" "${ARM64_PACKAGES[@]/%/:arm64}")
printf '%s\0' "$folder"/packages/*_amd64.deb | xargs -0 -P "$(nproc)" -I '{}' dpkg-deb --extract '{}' "$folder/host"
printf '%s\0' "$folder"/packages/*_arm64.deb | xargs -0 -P "$(nproc)" -I '{}' dpkg-deb --extract '{}' "$folder/arm64"
# Programs look for their loader in /lib.
ln -s usr/lib "$folder/arm64/lib"
for part in host arm64; do cp -r --link "$folder/$part"/usr/lib/rustlib/* "$folder/sysroot/lib/rustlib/"; done

# Through Debian's loader, because this computer's libraries may be older.
cat >"$folder/rustc" <<END
#!/bin/sh
exec '$target/host/usr/lib64/ld-linux-x86-64.so.2' --library-path '$target/host/usr/lib/x86_64-linux-gnu' \\
    '$target/host/usr/bin/rustc' --sysroot '$target/sysroot' "\$@"
END
cat >"$folder/run" <<END
#!/bin/sh
exec '$target/host/usr/bin/qemu-aarch64' -L '$target/arm64' "\$@"
END
chmod +x "$folder"/{rustc,run}
rm -rf "${folder:?}"/{apt,packages} "${target:?}.old"
# Moved, because a folder that is half deleted looks complete.
[ ! -e "$target" ] || mv "$target" "$target.old"
# From here on, a failure leaves no toolchain.
trap 'rm -rf "$target"' EXIT
mv "$folder" "$target"

# Starts both, and a program for arm64: its loader.
"$target/rustc" --version
test -d "$("$target/rustc" --print target-libdir --target aarch64-unknown-linux-gnu)" || fail "the compiler has no standard library for arm64"
"$target/run" "$target/arm64/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1" --version | head -1
trap - EXIT
rm -rf "$target.old"
