#!/usr/bin/env bash
# An arm64 Debian in a folder, to run aarch64 wheels on an x86 machine under qemu. As root, on Debian or Ubuntu:
#
#   root.sh tools              install debootstrap and qemu where they are missing
#   root.sh make WHEEL         make the root, or what is missing of it: Debian, then the wheels of $AARCH64/wheels, then WHEEL
#   root.sh run COMMAND...     run a command in it, without a network
#   root.sh remove             remove it, and all that was fetched for it
#
# AARCH64 names the folder. SUITE and MIRROR choose the Debian; the mirror is the one that apt uses here, unless given.
#
# Everything is mounted in a mount namespace of its own, which ends with its last process, however that ends: no mount is left behind,
# and there is none to undo. Exit code 3: this machine cannot; the message says why.
set -euo pipefail

FOLDER=$(realpath -m "${AARCH64:-.venv/aarch64}")
SUITE=${SUITE:-bookworm}
ROOT=$FOLDER/root
WHEELS=$FOLDER/wheels
VENV=/opt/edge-latup  # inside
QEMU=/usr/bin/qemu-aarch64-static
# Of the generation of Jetson Orin's Cortex-A78AE: ARMv8.2 with dot products and FP16, without SVE. "max" has all that qemu knows.
CPU=${QEMU_CPU:-cortex-a76}
BINFMT=/proc/sys/fs/binfmt_misc
HANDLER=edge-latup-aarch64
# An ELF file of 64 bits, little endian, for AArch64 (e_machine 183): an executable or a shared object.
MAGIC='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
MASK='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
# Names of the first feature bits, in the order of Linux' asm/hwcap.h for arm64.
HWCAP=(fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp
    sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg)

say() { echo "$*" >&2; }

refuse() {
    say "no arm64 root: $1"
    exit 3
}

# Becomes "$0 STEP ..." with mounts, processes and, for all but the making of Debian, a network of its own. All of it ends with unshare.
apart() {
    local network=$1
    shift
    local own=(--mount --propagation private --pid --fork --kill-child)
    [ "$network" = yes ] || own+=(--net)
    exec unshare "${own[@]}" "$0" "$@"
}

check() {
    [ "$(id -u)" = 0 ] || refuse "only root can make or enter one"
    unshare --mount --pid --fork true 2>/dev/null || refuse "this machine lets nobody unshare mounts (a container without CAP_SYS_ADMIN?)"
    grep -qw binfmt_misc /proc/filesystems || [ -e "$BINFMT/register" ] || refuse "the kernel has no binfmt_misc"
}

tools() {
    check
    if [ -x "$QEMU" ] && command -v debootstrap >/dev/null; then return; fi
    command -v apt-get >/dev/null || refuse "debootstrap or qemu-user-static is missing, and there is no apt-get to install them"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends debootstrap qemu-user-static; } >&2 \
        || refuse "apt-get cannot install debootstrap and qemu-user-static"
}

mirror() {
    local found
    found=${MIRROR:-$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' \
        | awk -v suite="$SUITE" '$1 == suite { print $2; exit }')}
    [ -n "$found" ] || refuse "apt has no mirror of $SUITE here; name one: MIRROR=http://... "
    echo "$found"
}

# ---- in a namespace of its own ----

# Lets the kernel run AArch64 programs through qemu. The flag F opens qemu now, so that it need not lie inside the root. Newer kernels
# (6.7) forget the handler with the last mount of binfmt_misc; older ones keep it until they restart.
register() {
    [ -e "$BINFMT/register" ] || mount -t binfmt_misc binfmt_misc "$BINFMT"
    if grep -qs '^enabled' "$BINFMT/$HANDLER"; then return; fi
    printf '%s' ":$HANDLER:M::$MAGIC:$MASK:$QEMU:F" >"$BINFMT/register" || grep -qs '^enabled' "$BINFMT/$HANDLER"
}

enter() {
    chroot "$ROOT" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH="$VENV/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        QEMU_CPU="$CPU" "$@"
}

# A root that is not finished lies under another name, so that what is cut short is made anew; packages are kept. A mirror or an emulated
# program that hangs is given a quarter of an hour.
step_debian() {
    register
    local part=$FOLDER/root.part log=$FOLDER/debootstrap.log
    rm -rf --one-file-system "$part"
    mkdir -p "$FOLDER/packages"
    {
        timeout 900 debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,python3-venv --cache-dir="$FOLDER/packages" \
            "$SUITE" "$part" "$1" && QEMU_CPU="$CPU" timeout 900 chroot "$part" /debootstrap/debootstrap --second-stage
    } >"$log" 2>&1 || { tail -5 "$log" >&2; refuse "debootstrap failed; all it said is in $log"; }
    rm -rf "$part"/var/cache/apt/archives/*.deb
    mv "$part" "$ROOT"
}

# OpenVINO names its telemetry as a requirement; bundles leave it out (edge_latup/bundle/wheelhouse.py). Nothing else may be missing.
check_requirements() {
    local told
    told=$(enter "$VENV/bin/pip" --disable-pip-version-check check | grep -v "requires openvino-telemetry, which is not installed" || true)
    case $told in "" | "No broken requirements found.") ;; *) refuse "$told" ;; esac
}

step_install() {
    register
    mount -t proc proc "$ROOT/proc"
    mkdir -p "$ROOT/wheels"
    mount --bind "$WHEELS" "$ROOT/wheels"
    local wheel=$1 pip=("$VENV/bin/pip" --disable-pip-version-check --no-cache-dir install --quiet --no-compile --no-index --no-deps)
    if ! cmp -s "$WHEELS/requirements.txt" "$ROOT/opt/dependencies.txt"; then
        rm -rf "$ROOT$VENV" "$ROOT/opt/dependencies.txt" "$ROOT/opt/wheel.sha256"
        enter python3 -m venv "$VENV"
        enter "${pip[@]}" --find-links /wheels --require-hashes --requirement /wheels/requirements.txt
        cp "$WHEELS/requirements.txt" "$ROOT/opt/dependencies.txt"
    fi
    if ! sha256sum --check --status "$ROOT/opt/wheel.sha256" 2>/dev/null; then
        cp "$wheel" "$ROOT/opt/"
        enter "${pip[@]}" --force-reinstall "/opt/$(basename "$wheel")"
        check_requirements >&2
        sha256sum "$wheel" >"$ROOT/opt/wheel.sha256"
    fi
}

# What the kernel of an ARM board says of its processors, with the features that qemu emulates. qemu 7 shows this machine's own file
# instead, of an x86 processor, on which ONNX Runtime 1.31 ends with a segmentation fault when it is imported.
cpuinfo() {
    local bits features="" index maker=0x00 part=0x051  # a processor that does not exist
    [ "$CPU" != cortex-a76 ] || maker=0x41 part=0xd0b
    bits=$(enter LD_SHOW_AUXV=1 true | awk '$1 == "AT_HWCAP:" { print $2 }')
    [[ $bits == 0x* ]] || bits=0x$bits
    for index in "${!HWCAP[@]}"; do
        if ((bits >> index & 1)); then features+=" ${HWCAP[$index]}"; fi
    done
    for ((index = 0; index < $(nproc); index++)); do
        printf 'processor\t: %d\nBogoMIPS\t: 50.00\nFeatures\t:%s\n' "$index" "$features"
        printf 'CPU implementer\t: %s\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 0\n\n' "$maker" "$part"
    done
}

step_run() {
    register
    mount -t proc proc "$ROOT/proc"
    mount --rbind /sys "$ROOT/sys"
    mount -t tmpfs tmpfs "$ROOT/run"
    cpuinfo >"$ROOT/run/cpuinfo"
    mount --bind "$ROOT/run/cpuinfo" "$ROOT/proc/cpuinfo"
    # Not exec: as the first process of its namespace, a command could not be killed by its own abort().
    enter "$@" || exit $?
}

# ---- the commands ----

make_root() {
    check
    [ -x "$QEMU" ] && command -v debootstrap >/dev/null || refuse "debootstrap or qemu-user-static is missing: $0 tools"
    mkdir -p "$FOLDER"
    exec 9>"$FOLDER/lock"
    flock 9
    if [ ! -d "$ROOT" ]; then
        local from
        from=$(mirror)
        say "making a Debian $SUITE for arm64 in $ROOT (minutes)"
        (apart yes step_debian "$from")
    fi
    say "installing the wheels in it"
    (apart no step_install "$(realpath "$1")")
    say "$ROOT is ready"
}

run() {
    check
    [ -x "$ROOT$VENV/bin/edge-latup" ] || refuse "$ROOT is not made, or not finished: make aarch64-root"
    apart no step_run "$@"
}

remove() {
    rm -rf --one-file-system "$FOLDER"
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
    tools | remove) "$command" ;;
    make) make_root "$@" ;;
    run) run "$@" ;;
    step_debian | step_install | step_run) "$command" "$@" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
