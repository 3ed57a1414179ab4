#!/bin/sh
# Builds the Pub/Sub server for tests to the path that is given, and installs what that takes, if it may: Go and Google's
# in-memory fake, both from Debian's packages (the fake is not what Google's emulator is, but it needs no download of Google's).
set -eu

packages="golang-go golang-google-cloud-dev"
fake=/usr/share/gocode/src/cloud.google.com/go/pubsub/pstest

if ! command -v go >/dev/null || [ ! -d "$fake" ]; then
    if [ "$(id -u)" = 0 ]; then as_root=""
    elif sudo -n true 2>/dev/null; then as_root="sudo -n"
    else as_root=none
    fi
    if [ "$as_root" = none ] || ! command -v apt-get >/dev/null; then
        echo "the tests need a Pub/Sub server, which is built from the Debian packages: $packages" >&2
        echo "install them ('apt-get install $packages') and try again" >&2
        exit 1
    fi
    echo "installing $packages" >&2
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >/dev/null
fi

cache="$(mktemp -d)"
trap 'rm -rf "$cache"' EXIT
mkdir -p "$(dirname "$1")"
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$cache" GOFLAGS= go build -o "$1" "$(dirname "$0")/main.go"
