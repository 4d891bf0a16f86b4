"""Debian's package descriptions in several languages, as apt fetches and stores them.

A Translation-XX list has an entry a package: "Package", "Description-md5" (of the English
description, so that it joins the languages) and "Description-XX": the synopsis, and lines that
begin with a space; " ." separates paragraphs. The Packages lists name the source package.
"""
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import unicodedata

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
APT_HELPER = "/usr/lib/apt/apt-helper"  # reads lists in any compression apt may have chosen


def give_up(message):
    print(f"text.py: {message}", file=sys.stderr)
    sys.exit(1)


def apt_command(folder, mirror, suites, extra=()):
    """apt-get with a folder of our own; nothing of the system's is used or changed, so no rights are
    needed. `extra`: further (option, value)."""
    if not shutil.which("apt-get"):
        give_up("apt-get is missing: Debian's apt fetches and verifies lists and packages")
    folder = os.path.abspath(folder)
    for part in ("lists/partial", "cache/archives/partial", "empty"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    if not os.path.exists(KEYRING):
        give_up(f"{KEYRING} is missing: install the package debian-archive-keyring")
    sources = os.path.join(folder, "sources.list")
    with open(sources, "w") as out:
        out.writelines(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in suites)
    options = {
        "Dir::State::lists": folder + "/lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder + "/cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": folder + "/empty",
        "APT::Architecture": "amd64",  # the same lists on every machine
        "APT::Architectures": "amd64",
        "APT::Update::Post-Invoke-Success": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::Check-Valid-Until": "false",  # those of the snapshot archive are old
        "Acquire::Retries": "3",
        "Acquire::http::Timeout": "30",
    }
    if os.geteuid() == 0:
        options["APT::Sandbox::User"] = "root"  # _apt may not enter our folder
    command = ["apt-get", "-qq"]
    for name, value in [*options.items(), *extra]:
        command += ["-o", f"{name}={value}"]
    return command


def apt_run(command, what, folder=None):
    """What an apt command prints; a failure ends the program with its first message."""
    done = subprocess.run(command, check=False, text=True, cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line[:2] in ("E:", "W:")]
        why = lines[0][2:].strip() if lines else f"apt-get ended with {done.returncode}"
        give_up(f"apt could not fetch {what}: {why}. Is there a network?")
    return done.stdout


def fetch_lists(folder, mirror, suites, languages):
    """Has apt fetch and verify the lists of packages and descriptions."""
    extra = [("Acquire::Languages", "en," + ",".join(languages))]
    apt_run(apt_command(folder, mirror, suites, extra) + ["update"],
            f"the lists of {', '.join(suites)} from {mirror} (with lists from before: --lists FOLDER)")
    return os.path.abspath(folder) + "/lists"


def system_mirror():
    """The mirror that this system's own apt fetches Debian from."""
    done = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)",
                           "Created-By: Packages"], check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    found = [line.rstrip("/") for line in done.stdout.split() if line.rstrip("/").endswith("debian")]
    if done.returncode or not found:
        give_up("apt names no Debian mirror on this system: give one with --mirror URL")
    return min(found)


def read_list(path):
    done = subprocess.run([APT_HELPER, "cat-file", path], check=False, capture_output=True)
    if done.returncode:
        give_up(f"{path}: {APT_HELPER} cannot read it: {done.stderr.decode().strip()[:200]}")
    return done.stdout


def list_files(folder, suites, ending):
    """The lists of main in the order of the suites given; a suite without one is an error."""
    files = []
    for suite in suites:
        found = sorted(glob.glob(f"{glob.escape(folder)}/*_dists_{suite}_main_{ending}*"))
        found = [path for path in found if re.fullmatch(r".*" + ending + r"(\.\w+)?", path)]
        if not found:
            give_up(f"{folder}: no list *_dists_{suite}_main_{ending}; without --lists "
                    "apt fetches it")
        files.append(found[0])
    return files


def paragraphs_of_file(data):
    """Yields the entries as dictionaries; a field's continuation lines keep their line ends."""
    for block in data.decode("utf-8", "replace").split("\n\n"):
        entry, name = {}, None
        for line in block.split("\n"):
            if line[:1] in (" ", "\t"):
                if name:
                    entry[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                entry[name] = value.strip()
        if entry:
            yield entry


def clean(text):
    """One line of normal text: no control characters, white space joined, composed accents."""
    text = unicodedata.normalize("NFC", text.replace("\u00ad", ""))
    text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join(text.split())


BULLET = re.compile(r"(\s*)(?:[-*+o•·–‣]|--|\(?\d{1,2}[.)])\s+(?=\S)")


def segments_of(lines):
    """A paragraph's lines to [(kind, text)], kind "prose", "item" (of a list, without its mark), or
    "fragment": prose whose sentence continues in a list or in verbatim lines. Those lines
    (commands, tables; further indented without a mark) are left out."""
    segments, open_kind, indent = [], None, 0
    for line in lines:
        mark = BULLET.match(line)
        goes_on = open_kind == "prose" and (mark or line.startswith(" "))
        if goes_on and segments[-1][1].rstrip()[-1:] not in tuple(".:!?;"):
            segments[-1][0] = "fragment"
        if mark:
            segments.append(["item", line[mark.end():]])
            open_kind, indent = "item", len(mark.group(1))
        elif open_kind == "item" and (line.startswith(" ") or indent == 0):
            segments[-1][1] += " " + line
        elif line.startswith(" "):
            open_kind = None
        elif open_kind == "prose":
            segments[-1][1] += " " + line
        else:
            segments.append(["prose", line])
            open_kind = "prose"
    return [(kind, clean(text)) for kind, text in segments if clean(text)]


class Description:
    """title: the synopsis; paragraphs: [[(kind, text), ...], ...]"""

    def __init__(self, field):
        title, *lines = field.split("\n")
        self.title = clean(title)
        groups = [[]]
        for line in lines:
            if line.strip() == ".":
                groups.append([])
            else:
                groups[-1].append(line[1:].rstrip())
        self.paragraphs = [segments_of(group) for group in groups if group]

    def texts(self):
        return [("title", self.title)] + [s for group in self.paragraphs for s in group]


class Package:
    """One English description: of the first package in the alphabet that has it."""

    def __init__(self, name, source, english):
        self.name, self.source, self.english = name, source, english
        self.others = {}  # language -> Description
        words = re.findall(r"[a-z0-9+.]+", f"{name} {source}".lower())
        words += [name.lower(), source.lower()]
        self.words = {w for w in words if len(w) > 2} | {w[3:] for w in words if w[:3] == "lib"}
        self.words -= COMMON_NAME_PARTS


# parts of package names that are words: they stay visible when names are masked
COMMON_WORDS = (
    "python perl ruby java data common tools utils doc docs lib libs library client server plugin "
    "plugins games game fonts font text file files image images music sound video web editor test "
    "tests theme themes support task education science the all for with free open simple time mail "
    "network system key keys base core main extra extras dev dbg bin gui php lua node")
COMMON_NAME_PARTS = frozenset(COMMON_WORDS.split())


def source_packages(folder, suites):
    sources = {}
    for path in list_files(folder, suites, "binary-amd64_Packages"):
        for entry in paragraphs_of_file(read_list(path)):
            if "Package" in entry:
                source = entry.get("Source", entry["Package"]).split(" ")[0]
                sources.setdefault(entry["Package"], source)
    return sources


def read_packages(folder, suites, languages):
    """The distinct English descriptions with their translations, in a fixed order, and a line of
    report for each list that was read (with a checksum, so that two runs can be compared)."""
    sources = source_packages(folder, suites)
    by_md5, report = {}, []
    for language in ["en"] + languages:
        field = "Description-" + language
        for path in list_files(folder, suites, "i18n_Translation-" + language):
            data = read_list(path)
            count = 0
            for entry in paragraphs_of_file(data):
                md5, name = entry.get("Description-md5"), entry.get("Package")
                if not md5 or not name or field not in entry:
                    continue
                count += 1
                package = by_md5.get(md5)
                if language == "en":
                    if not package or name < package.name:
                        by_md5[md5] = Package(name, sources.get(name, name),
                                              Description(entry[field]))
                elif package:
                    package.others.setdefault(language, Description(entry[field]))
            report.append((re.sub(r".*_dists_(.*?)(\.\w+)?$", r"\1", path), count,
                           hashlib.sha256(data).hexdigest()[:16]))
    packages = sorted(by_md5.items(), key=lambda item: (item[1].source, item[1].name, item[0]))
    return [package for _, package in packages], report
