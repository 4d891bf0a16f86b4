#!/bin/sh
# The page of `easyfirst serve` in a real browser (tests/serve_browser.py), where Debian's chromium and
# chromium-driver are installed; elsewhere one skipped test. With a folder as argument screenshots are left there.
# shellcheck source=tests/browser.sh
. "$(dirname "$0")/browser.sh"
if "${EASYFIRST:-build/easyfirst}" serve -m no/such/model 2>&1 | grep -q libmicrohttpd; then
    echo "1..1"
    echo "ok 1 # SKIP this build has no server (package libmicrohttpd-dev)"
    exit 0
fi
exec python3 -B "$(dirname "$0")/serve_browser.py" "$chromium" "$driver" "$@"
