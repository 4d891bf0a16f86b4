#!/usr/bin/env python3
"""Takes message catalogues and help pages in German and English out of Debian's packages.

usage: data/prep/catalogues_fetch.py OUT [--mirror URL] [--suite NAME] [--limit BYTES]
  OUT      gets a folder for each package with its files, which catalogues.py reads; a package that was
           finished before is not fetched again, so that an interrupted run can be repeated
  --limit  packages larger than this are left out (default 500 MB: all; all together some 5 GB pass
           through, one at a time, and nothing is installed)

Which packages: those whose list of contents has a German catalogue or help page. Needs apt,
dpkg-deb and tar.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys

import text_lists

# Files that make a package interesting, and those that are kept.
WANTED = re.compile(rb"^usr/share/.*(/de/LC_MESSAGES/[^/]*\.mo|/help/de/.*\.(page|xml|docbook|html)|"
                    rb"/HTML/de/.*\.(docbook|html))\s")
KEPT = ["*/de/LC_MESSAGES/*.mo"] + [
    f"*/{tree}/{language}/*.{ending}" for tree in ("help", "HTML")
    for language in ("de", "C", "en", "en-US") for ending in ("page", "xml", "docbook", "html")]
BATCH, BATCH_BYTES = 64, 300_000_000

# The English pages of packages whose German ones are a package of their own.
TOGETHER = {"gimp-help-en": "gimp-help-de", "libreoffice-help-en-us": "libreoffice-help-de"}
CONTENTS = [("Acquire::IndexTargets::deb::Contents-deb::" + name, value) for name, value in (
    ("MetaKey", "$(COMPONENT)/Contents-$(ARCHITECTURE)"),
    ("ShortDescription", "Contents-$(ARCHITECTURE)"),
    ("Description", "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents"),
    ("DefaultEnabled", "true"))]


def packages_wanted(lists):
    """The names of packages whose contents have what we look for."""
    names = set(TOGETHER)
    for path in sorted(os.listdir(lists)):
        if "_Contents-" not in path:
            continue
        helper = subprocess.Popen([text_lists.APT_HELPER, "cat-file", os.path.join(lists, path)],
                                  stdout=subprocess.PIPE)
        for line in helper.stdout:
            if WANTED.match(line):
                for name in line.rsplit(None, 1)[1].decode().split(","):
                    names.add(name.rsplit("/", 1)[-1])
        if helper.wait():
            text_lists.give_up(f"{path}: {text_lists.APT_HELPER} cannot read it")
    return sorted(names)


def extract(package, folder):
    """The files that are kept, of one .deb."""
    os.makedirs(folder, exist_ok=True)
    archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", folder, "--wildcards", "--no-same-owner", *KEPT],
                   stdin=archive.stdout, stderr=subprocess.DEVNULL, check=False)
    archive.stdout.close()
    if archive.wait() not in (0, -13):  # tar may have all it wants before the end
        text_lists.give_up(f"{package}: dpkg-deb cannot read it")


def batches(names, sizes):
    """Packages that one call of apt-get takes, which reads all lists each time, and their sum on the disk."""
    batch, total = [], 0
    for name in names:
        if batch and (len(batch) == BATCH or total + sizes[name] > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += sizes[name]
    if batch:
        yield batch


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--mirror", metavar="URL")
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--limit", type=int, default=500_000_000, metavar="BYTES")
    options = parser.parse_args()
    out = os.path.abspath(options.out)
    apt = text_lists.apt_command(out + "/.apt", options.mirror or text_lists.system_mirror(),
                                 [options.suite], CONTENTS + [("Acquire::Languages", "none")])
    text_lists.apt_run(apt + ["update"], f"the lists of {options.suite}")
    names = packages_wanted(out + "/.apt/lists")
    uris = text_lists.apt_run(apt + ["download", "--print-uris", *names], "the packages' addresses")
    sizes = {}
    for line in uris.splitlines():
        fields = line.split()
        if len(fields) >= 3 and line.startswith("'"):
            sizes[fields[1].split("_")[0]] = int(fields[2])
    todo = sorted((n for n in sizes if sizes[n] <= options.limit), key=lambda n: (sizes[n], n))
    print(f"{len(todo)} packages, {sum(sizes[n] for n in todo) / 1e9:.1f} GB")
    temporary = out + "/.apt/deb"
    todo = [name for name in todo if not os.path.exists(os.path.join(out, ".apt", name + ".done"))]
    for batch in batches(todo, sizes):
        shutil.rmtree(temporary, ignore_errors=True)
        os.makedirs(temporary)
        text_lists.apt_run(apt + ["download", *batch], " ".join(batch), folder=temporary)
        for file in sorted(os.listdir(temporary)):
            name = file.split("_")[0]
            extract(os.path.join(temporary, file), os.path.join(out, TOGETHER.get(name, name)))
            with open(os.path.join(out, ".apt", name + ".done"), "w"):
                pass
        print(f"up to {batch[-1]}, {sizes[batch[-1]] / 1e6:.1f} MB", flush=True)
    shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
