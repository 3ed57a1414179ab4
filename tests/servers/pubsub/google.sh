#!/bin/sh
# Runs a command that finds Google's own Pub/Sub emulator at PUBSUB_EMULATOR_HOST: the one that is there, or else one that runs
# only as long. Its jar is PUBSUB_EMULATOR_JAR, or where gcloud puts it.
set -eu

missing() {
    echo "MISSING: $1" >&2
    echo "set PUBSUB_EMULATOR_HOST to an emulator that runs; or PUBSUB_EMULATOR_JAR to its jar, which takes Java; or install it:" >&2
    echo "'gcloud components install pubsub-emulator', or the package google-cloud-cli-pubsub-emulator" >&2
    exit 1
}

if [ -n "${PUBSUB_EMULATOR_HOST:-}" ]; then
    echo "Pub/Sub: Google's emulator at $PUBSUB_EMULATOR_HOST" >&2
    exec "$@"
fi

jar="${PUBSUB_EMULATOR_JAR:-}"
if [ -z "$jar" ]; then
    root="${CLOUDSDK_ROOT_DIR:-}"
    if [ -z "$root" ] && command -v gcloud >/dev/null; then root="$(gcloud info --format='value(installation.sdk_root)')"; fi
    [ -n "$root" ] || missing "Google's Pub/Sub emulator, and gcloud, which knows where it is"
    for found in "$root"/platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar; do jar="$found"; done
fi
[ -f "$jar" ] || missing "Google's Pub/Sub emulator: there is no $jar"
command -v java >/dev/null || missing "java, to run $jar"

port="$(${PYTHON:-python3} -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')"
log="$(mktemp)"
java -jar "$jar" --host=127.0.0.1 --port="$port" >"$log" 2>&1 &
emulator=$!
trap 'kill $emulator 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM
until grep -q "Server started, listening on $port" "$log"; do
    if ! kill -0 $emulator 2>/dev/null; then
        cat "$log" >&2
        missing "an emulator that starts: its words are above"
    fi
    sleep 0.2
done
echo "Pub/Sub: Google's emulator, $(basename "$jar"), on port $port" >&2
PUBSUB_EMULATOR_HOST="127.0.0.1:$port" "$@"
