#!/usr/bin/env python3
"""Photographs with questions that a model is measured by, taken out of packages that training never uses.

usage: data/prep/photos_eval.py OUT [--packages FOLDER] [--shared FOLDER]
  OUT       gets images/ID.jpg (the packages' own bytes, of any format) and gqa/photos_questions.json in
            GQA's form, each question with a list of accepted "answers": evaluate.sh takes OUT as WORLD
            with SETS=photos
  --packages  where wheels and .deb files lie or are downloaded to (OUT/packages); nothing is installed
  --shared  the folder with data/images of LLaVA (../shared); without it those photographs are counted
            as left out

photos_eval.tsv beside this has the questions, written by hand after looking at each photograph: one for
the main subject, one for something that is there, one for something that is not, one more. RESERVED
names packages with the same photographs: no training set takes images from any of them. Needs pip, apt
and dpkg-deb. Photographs keep their packages' licences.
"""
import argparse
import collections
import csv
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "photos_eval.tsv")

# Kept from training as a whole, beside the packages of the table: some of their photographs are
# copies of the table's or belong to the same collections.
RESERVED = ("imageio", "scipy", "python3-skimage", "python-skimage-doc", "python3-sklearn",
            "python-matplotlib-data", "budgie-control-center-data", "mate-user-admin",
            "cinnamon-common")
# GQA's types by kind: structural, semantic, detailed.
TYPES = {"subject": ("query", "cat", "photoSubject"), "present": ("verify", "obj", "photoExist"),
         "absent": ("verify", "obj", "photoExist"), "color": ("query", "attr", "photoColor"),
         "number": ("query", "attr", "photoNumber"), "place": ("query", "rel", "photoPlace"),
         "use": ("query", "attr", "photoUse"), "clothing": ("query", "attr", "photoClothing")}


def give_up(message):
    sys.exit(f"photos_eval.py: {message}")


def table_read(path=TABLE):
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values() or row["kind"] not in TYPES:
            give_up(f"{path}: line {number} is not a row of the table's nine columns")
    return rows


def packages_reserved(rows=None):
    """Names of all packages whose images training must not use."""
    return {row["package"] for row in rows or table_read()} | set(RESERVED)


# ---- Packages. ----

def run(command, folder):
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    return done.returncode == 0, done.stderr.strip()[-300:]


def package_get(folder, source, package, version):
    """The path of the wheel or .deb; downloaded if it is missing."""
    if source == "pypi":
        prefix, suffix = f"{package.replace('-', '_')}-{version}-", ".whl"
        commands = [[sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                     "--only-binary", ":all:", "--python-version", "3.12", "--dest", ".",
                     f"{package}=={version}"]]
    else:
        prefix, suffix = f"{package}_", ".deb"
        # Another version may hold the same photograph: its checksum decides.
        commands = [["apt-get", "download", f"{package}={version}"], ["apt-get", "download", package]]
    reason = ""
    for command in [None, *commands]:
        if command:
            _, reason = run(command, folder)
        found = [f for f in sorted(os.listdir(folder)) if f.startswith(prefix) and f.endswith(suffix)]
        if found:
            return os.path.join(folder, found[-1])
    return give_up(f"{package} {version} could not be downloaded; put it into {folder}: {reason}")


def members_read(path, names):
    """{name: bytes} of the members of a wheel or .deb that are there."""
    if path.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            return {name: wheel.read(name) for name in names if name in set(wheel.namelist())}
    found = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE) as unpack, \
            tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name in names and member.isfile():
                found[name] = tar.extractfile(member).read()
    return found


def photographs_read(rows, folder, shared):
    """{id: bytes}; those of a missing shared folder are left out."""
    wanted = collections.defaultdict(dict)
    for row in rows:
        wanted[row["source"], row["package"], row["version"]][row["path"]] = row
    photographs = {}
    for (source, package, version), paths in sorted(wanted.items()):
        if source == "shared":
            found = {}
            for path in paths:
                if os.path.exists(os.path.join(shared, path)):
                    with open(os.path.join(shared, path), "rb") as file:
                        found[path] = file.read()
        else:
            where = package_get(folder, source, package, version)
            found = members_read(where, set(paths))
            if len(found) < len(paths):
                give_up(f"{where}: no {sorted(set(paths) - set(found))[0]}; expected version {version}")
        for path, data in found.items():
            digest = hashlib.sha256(data).hexdigest()
            if digest != paths[path]["sha256"]:
                give_up(f"{package}: {path} has the SHA-256 {digest}, expected "
                        f"{paths[path]['sha256']} of version {version}")
            photographs[paths[path]["id"]] = data
    return photographs


# ---- The set. ----

def questions_make(rows, photographs):
    questions = {}
    for row in rows:
        if row["id"] in photographs:
            structural, semantic, detailed = TYPES[row["kind"]]
            answers = row["answers"].split("|")
            key = f"{row['id']}-{row['kind']}"
            questions[key] = {
                "question": row["question"], "imageId": row["id"], "answer": answers[0],
                "answers": answers, "fullAnswer": "", "isBalanced": True, "types":
                {"structural": structural, "semantic": semantic, "detailed": detailed},
                "groups": {"global": detailed if structural == "query" else None, "local": None},
                "semantic": [], "semanticStr": "", "equivalent": [key], "entailed": [],
                "annotations": {"question": {}, "answer": {}, "fullAnswer": {}}}
    return questions


def choices_make(questions):
    """The accepted answers of all questions of a type; yes and no."""
    of_type = collections.defaultdict(set)
    for record in questions.values():
        of_type[record["types"]["detailed"]].update(record["answers"])
    return {key: {"valid": valid, "plausible": valid} for key, record in questions.items()
            for valid in [sorted(of_type[record["types"]["detailed"]])]}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--packages", metavar="FOLDER")
    parser.add_argument("--shared", metavar="FOLDER", default="../shared")
    options = parser.parse_args()
    rows = table_read()
    packages = options.packages or os.path.join(options.out, "packages")
    for folder in (packages, os.path.join(options.out, "images"), os.path.join(options.out, "gqa")):
        os.makedirs(folder, exist_ok=True)
    photographs = photographs_read(rows, packages, options.shared)
    for name, data in photographs.items():
        with open(os.path.join(options.out, "images", f"{name}.jpg"), "wb") as file:
            file.write(data)
    questions = questions_make(rows, photographs)
    choices = choices_make(questions)
    for name, value in (("questions", questions), ("choices", choices)):
        with open(os.path.join(options.out, "gqa", f"photos_{name}.json"), "w",
                  encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=0)
    print(f"{len(photographs)} photographs, {len(questions)} questions")
    left_out = len({row["id"] for row in rows}) - len(photographs)
    if left_out:
        print(f"{left_out} photographs left out: {options.shared} has no data/images")


if __name__ == "__main__":
    main()
