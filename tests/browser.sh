#!/bin/sh
# For the scripts that test pages in a browser: $chromium and $driver; where one is missing, one skipped test.
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
driver=$(command -v chromedriver)
if [ -z "$chromium" ] || [ -z "$driver" ] || ! command -v python3 >/dev/null 2>&1; then
    echo "1..1"
    echo "ok 1 # SKIP no chromium, chromedriver or python3 here (packages chromium, chromium-driver)"
    exit 0
fi
