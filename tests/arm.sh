#!/usr/bin/env bash
# Builds Handmill for 64-bit ARM, runs the kernel tests under emulation and compares the hash of all logits of the real
# models with this machine's: the NEON kernels must give the same bits. On Debian, for contributors without an ARM
# machine; it says nothing about speed.
#
#   tests/arm.sh              everything
#   tests/arm.sh --prompt "A" another prompt for the hashes
#
# Rust's own toolchain brings no standard library for ARM where it cannot be downloaded; Debian's compiler rustc-web has
# one. It is kept beside the normal toolchain: only this script uses it.
set -euo pipefail
cd "$(dirname "$0")/.."

prompt="Once upon a time"
while [ $# -gt 0 ]; do
    case $1 in
        --prompt) prompt=${2:?--prompt needs a text}; shift 2 ;;
        *) echo "usage: tests/arm.sh [--prompt TEXT]" >&2; exit 2 ;;
    esac
done

triple=aarch64-unknown-linux-gnu
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
home=$target/arm
emulator="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
export HANDMILL_HOME=${HANDMILL_HOME:-$target/models}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The cross linker, the emulator, Debian's compiler, and in $home/sysroot its standard libraries for both machines.
prepare() {
    if ! { command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64-static && [ -x /usr/bin/rustc ]; } >/dev/null; then
        as_root dpkg --add-architecture arm64
        as_root apt-get update -q
        DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -q --no-install-recommends \
            rustc-web gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    fi
    local version
    version=$(/usr/bin/rustc --version | cut -d' ' -f2)
    if [ "$(cat "$home/version" 2>/dev/null)" = "$version" ]; then return; fi
    rm -rf "$home"
    mkdir -p "$home/sysroot/lib"
    # Exactly the compiler's version: libraries of another cannot be linked.
    local package
    package=libstd-rust-web-dev:arm64=$(dpkg-query -W -f '${Version}' rustc-web)
    (cd "$home" && apt-get download "$package" && dpkg -x libstd-rust-web-dev_*_arm64.deb root)
    cp -r /usr/lib/rustlib "$home/sysroot/lib/"
    cp -r "$home/root/usr/lib/rustlib/$triple" "$home/sysroot/lib/rustlib/"
    rm -rf "$home/root" "$home"/*.deb
    echo "$version" > "$home/version"
}

# Cargo with Debian's compiler. The flags are the target's alone: build scripts and macros run on this machine.
arm_cargo() {
    RUSTC=/usr/bin/rustc CARGO_TARGET_DIR=$home/build \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="--sysroot $home/sysroot" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator" \
        cargo "$@" --release --target $triple
}

# hash PROGRAM... MODEL
hash() {
    printf '{"prompt": "%s"}\n' "$prompt" | "${@:1:$#-1}" score "${@: -1}" --input - --greedy 1 --top 1 |
        grep -o '"logits_sha256":"[0-9a-f]*"'
}

prepare
# Without GPUs: their bits are their drivers'.
arm_cargo build -p handmill --no-default-features
# Not the examples in documentation: rustdoc would take the libraries of the other toolchain.
arm_cargo test -p kernels --lib --tests
cargo build --release -p handmill
status=0
for model in smollm2 gemma3:270m; do
    here=$(hash "$target/release/handmill" $model)
    # shellcheck disable=SC2086 # the emulator is a command with arguments
    there=$(hash $emulator "$home/build/$triple/release/handmill" $model)
    if [ "$here" = "$there" ]; then
        echo "$model: the same $here"
    else
        echo "$model: $here here, $there on ARM" >&2
        status=1
    fi
done
exit $status
