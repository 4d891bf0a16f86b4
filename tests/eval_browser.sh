#!/bin/sh
# Pages of evaluations in a real browser (tests/eval_browser.py), where Debian's chromium and
# chromium-driver are installed; elsewhere one skipped test. With a folder as argument screenshots
# are left there.
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
driver=$(command -v chromedriver)
if [ -z "$chromium" ] || [ -z "$driver" ] || ! command -v python3 >/dev/null 2>&1; then
    echo "1..1"
    echo "ok 1 # SKIP no chromium, chromedriver or python3 here (packages chromium, chromium-driver)"
    exit 0
fi
exec python3 -B "$(dirname "$0")/eval_browser.py" "$chromium" "$driver" "$@"
