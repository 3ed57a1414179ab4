#!/usr/bin/env bash
# Builds the image, and runs the main job in it as it is to be run: read-only, as nobody, without capabilities or a
# network. Needs root on Debian 12, the packages below, Rust, Python 3, and crates.io; no Docker. Nearly all of its time is the build
# of Rust: half an hour on a busy machine of two cores, seconds when nothing has changed.
#
# Where a base image is not here (`podman pull` it before, to use the real one), a stand-in is made of Debian's packages: the
# real one's libraries, users and certificates, not its digest or its size.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec </dev/null

packages=(buildah podman runc netavark uidmap iptables mmdebstrap fuse-overlayfs catatonit ca-certificates)
tag=localhost/auditlake:test

[ "$(id -u)" = 0 ] || { echo "run this as root: base images are made from packages" >&2; exit 1; }
for tool in buildah podman runc mmdebstrap; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing: apt-get install -y --no-install-recommends ${packages[*]}" >&2
        exit 1
    }
done

work="$(mktemp -d)"
containers=()
cleanup() {
    for container in "${containers[@]}"; do podman rm --force --time 0 "$container" >/dev/null 2>&1 || true; done
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n=== %s (%d min %02d s)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }
fail() { echo "FAILED: $*" >&2; exit 1; }

base_of() { sed -n "s/^FROM \([^ ]*\)$1\$/\1/p" Dockerfile; }
build_base="$(base_of ' AS build')"
run_base="$(base_of '')"

make_base() { # name, tar, then buildah's configuration
    local name="$1" tar="$2" container
    shift 2
    container="$(buildah from scratch)"
    buildah add -q "$container" "$tar" / >/dev/null
    if [ $# -gt 0 ]; then buildah config "$@" "$container"; fi
    buildah commit -q --rm "$container" "$name" >/dev/null
}

if ! buildah inspect --type image "$build_base" >/dev/null 2>&1; then
    say "a stand-in for $build_base"
    # Else a Rust would be tried that the Dockerfile does not build with.
    wanted="$(sed -n 's/.*rust:\([0-9.]*\).*/\1/p' <<<"$build_base")"
    [[ "$(rustc --version)" == "rustc $wanted"[.\ ]* ]] \
        || fail "the Dockerfile's Rust is $wanted, this is $(rustc --version): RUSTUP_TOOLCHAIN=$wanted make test-image"
    toolchain="$(rustc --print sysroot)"
    mmdebstrap --quiet --variant=minbase --mode=root --include=ca-certificates,gcc,libc6-dev,make \
        --customize-hook="mkdir -p \"\$1/usr/local/cargo\" && cp -a '$toolchain/bin' '$toolchain/lib' \"\$1/usr/local/\"" \
        bookworm "$work/build.tar"
    make_base "$build_base" "$work/build.tar" --env CARGO_HOME=/usr/local/cargo \
        --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    rm "$work/build.tar"
fi
if ! buildah inspect --type image "$run_base" >/dev/null 2>&1; then
    say "a stand-in for $run_base"
    # Unpacked, not installed: no shell, and nothing that a package would set up. A hook's own $1 is the root that is made.
    # shellcheck disable=SC2016
    mmdebstrap --quiet --variant=extract --mode=root \
        --include=base-files,netbase,tzdata,libc6,libgcc-s1,libssl3,libstdc++6,ca-certificates \
        --customize-hook='mkdir -p "$1/etc/ssl/certs" "$1/home/nonroot" && cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"' \
        --customize-hook='printf "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n" >"$1/etc/passwd"' \
        --customize-hook='printf "root:x:0:\nnonroot:x:65532:\n" >"$1/etc/group"' \
        bookworm "$work/run.tar"
    make_base "$run_base" "$work/run.tar" --user nonroot --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
    rm "$work/run.tar"
fi

say "the image is built"
# Certificates of this machine, whose network may have one of its own between it and crates.io.
buildah bud --isolation chroot --pull=never --layers --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --tag "$tag" .

[ "$(podman inspect --format '{{.Config.User}}' "$tag")" = 65532:65532 ] || fail "the image's user"
[ "$(podman inspect --format '{{.Config.StopSignal}}' "$tag")" = SIGTERM ] || fail "the image's signal"

mkdir "$work/state" "$work/archive" "$work/logs"
chown 65532:65532 "$work/state" "$work/archive" "$work/logs"
chmod 755 "$work"

# Both limits: a container under root inherits more than the kernel grants.
confined=(--runtime runc --cgroup-manager cgroupfs)
job=(--network none --read-only --read-only-tmpfs=false --cap-drop=ALL --security-opt no-new-privileges --memory 512m
    --ulimit nofile=20000:20000 --ulimit nproc=1024:1024
    --volume "$PWD/config:/etc/auditlake:ro" --volume "$PWD/examples:/examples:ro"
    --volume "$work/state:/state" --volume "$work/archive:/archive" --volume "$work/logs:/logs")
in_container() { podman "${confined[@]}" run --rm "${job[@]}" "$tag" "$@"; }

say "catch-up, again, and verify"
in_container catch-up --config /etc/auditlake/local.toml --json >"$work/first.json"
python3 tests/check_example.py first examples/expected.json "$work/first.json"
in_container catch-up --config /etc/auditlake/local.toml --json >"$work/again.json"
python3 tests/check_example.py again examples/expected.json "$work/again.json"
in_container verify --config /etc/auditlake/local.toml
[ -z "$(find "$work/archive" "$work/state" ! -user 65532)" ] || fail "something was not written as 65532"

say "nothing else can be written"
if podman "${confined[@]}" run --rm "${job[@]}" --env AUDITLAKE__STATE__EMBEDDED__PATH=/elsewhere "$tag" \
    catch-up --config /etc/auditlake/local.toml 2>"$work/refused"; then
    fail "the root file system can be written to"
fi
grep -q "Read-only file system" "$work/refused" || fail "refused for another reason: $(cat "$work/refused")"

say "SIGTERM to process 1"
cp examples/audit/stream-2026-11-06.ndjson "$work/logs/"
daemon=auditlake-image-test-$$
containers+=("$daemon")
podman "${confined[@]}" run --detach --name "$daemon" "${job[@]}" --env AUDITLAKE__SOURCE__FILE__PATH=/logs \
    --env AUDITLAKE__STATE__EMBEDDED__PATH=/state/daemon --env AUDITLAKE__ARCHIVE__LOCAL__PATH=/archive/daemon "$tag" \
    run --config /etc/auditlake/local.toml >/dev/null
for _ in $(seq 100); do
    if podman logs "$daemon" 2>&1 | grep -q '"started"\|started'; then break; fi
    sleep 0.1
done
# The window stays open for up to half an hour: what is read by now is in no object yet.
sleep 3
[ -z "$(find "$work/archive/daemon/events" -name '*.parquet' 2>/dev/null)" ] || fail "the batch was over before the stop"
begun=$SECONDS
podman "${confined[@]}" stop --time 30 "$daemon" >/dev/null
took=$((SECONDS - begun))
[ "$(podman inspect --format '{{.State.ExitCode}}' "$daemon")" = 0 ] || { podman logs "$daemon" >&2; fail "its exit code"; }
[ "$took" -lt 28 ] || fail "it took $took seconds"
[ -n "$(find "$work/archive/daemon/events" -name '*.parquet')" ] || fail "the open batch was not committed"
podman "${confined[@]}" run --rm "${job[@]}" --env AUDITLAKE__STATE__EMBEDDED__PATH=/state/daemon \
    --env AUDITLAKE__ARCHIVE__LOCAL__PATH=/archive/daemon "$tag" verify --config /etc/auditlake/local.toml
echo "it ended after $took seconds, with its batch committed"

say "done; the image has $(podman image inspect --format '{{.Size}}' "$tag" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
