#!/bin/sh
# Makes Debian packages of what `make install` put into FOLDER/root.
# usage: apps/package/deb.sh FOLDER VERSION          (from the root of the sources; `make deb`)
folder=$1 version=$2 runtime=libeasyfirst$2 # the package of the shared library, named after its soname
[ -n "$version" ] || { echo "usage: apps/package/deb.sh FOLDER VERSION" && exit 2; }
command -v dpkg-deb >/dev/null 2>&1 || { echo "deb needs dpkg-deb (Debian: dpkg)"; exit 1; }
architecture=$(dpkg --print-architecture)
multiarch=$(gcc -print-multiarch 2>/dev/null)

folder=$(realpath "$folder")
root=$folder/root

# libraries PATH...: the packages of the shared libraries that these files need.
libraries() {
    command -v dpkg-shlibdeps >/dev/null 2>&1 || {
        echo "dpkg-shlibdeps is missing (Debian: dpkg-dev): it finds what the packages depend on" >&2
        return 1
    }
    mkdir -p "$folder/control/debian" && echo "Source: easyfirst" >"$folder/control/debian/control"
    files=
    library_folder=$folder/$runtime/usr/lib
    for file in "$@"; do files="$files -e$(realpath "$file")"; done
    # shellcheck disable=SC2086
    (cd "$folder/control" && dpkg-shlibdeps -O --ignore-missing-info "-l$library_folder" $files \
        2>"$folder/control/log") >"$folder/control/out" || {
        cat "$folder/control/log" >&2
        return 1
    }
    sed -n 's/^shlibs:Depends=//p' "$folder/control/out"
}

# needs_library PATH...: whether one of these files uses the shared libeasyfirst.
needs_library() {
    readelf -d "$@" 2>/dev/null | grep -q 'NEEDED.*libeasyfirst[.]so'
}

# move PACKAGE PATH...: paths below the root, which may be patterns, go into the package's tree.
move() {
    tree=$folder/$1
    shift
    for pattern in "$@"; do
        for path in "$root"/$pattern; do
            [ -e "$path" ] || [ -L "$path" ] || continue
            to=$tree/$(dirname "${path#"$root"/}")
            mkdir -p "$to" && mv "$path" "$to" || exit 1
        done
    done
}

# build PACKAGE ARCHITECTURE SECTION DEPENDS DESCRIPTION [RECOMMENDS]; its long description is standard input. A
# package without files, because this build has none of its kind, is named and left out.
build() {
    package=$1
    tree=$folder/$package
    if [ ! -d "$tree" ]; then
        echo "  no $package: make install puts none of its files in place"
        return
    fi
    mkdir -p "$tree/DEBIAN" "$tree/usr/share/doc/$package"
    cp LICENSE "$tree/usr/share/doc/$package/copyright"
    {
        echo "Package: $package"
        echo "Version: $version"
        echo "Architecture: $2"
        echo "Section: $3"
        echo "Priority: optional"
        echo "Maintainer: The easyfirst authors <easyfirst@localhost>"
        echo "Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)"
        [ -z "$4" ] || echo "Depends: $4"
        [ -z "$6" ] || echo "Recommends: $6"
        echo "Description: $5"
        sed 's/^/ /'
    } >"$tree/DEBIAN/control"
    (cd "$tree" && find usr -type f -exec md5sum {} +) >"$tree/DEBIAN/md5sums"
    [ "$package" != "$runtime" ] || echo "activate-noawait ldconfig" >"$tree/DEBIAN/triggers"
    chmod -R u+rwX,go+rX,go-w "$tree"
    file=$folder/${package}_${version}_$2.deb
    dpkg-deb --root-owner-group -z3 --build "$tree" "$file" >/dev/null || exit 1
    echo "  $file: $(du -k "$file" | cut -f1) KiB"
}

# Everything has its place: what is left in the root at the end belongs to no package.
find "$root" -name '*.1' -exec gzip -9n {} +
find "$root" -type f \( -perm -u+x -o -name '*.so*' \) -exec strip --strip-unneeded {} + 2>/dev/null
# The licence is each package's copyright file.
rm -f "$root/usr/share/doc/easyfirst/LICENSE"
mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions" 2>/dev/null
move easyfirst-model usr/share/easyfirst/model usr/share/easyfirst/images
move "$runtime" 'usr/lib/libeasyfirst.so.*' "usr/lib/$multiarch/libeasyfirst.so.*"
move libeasyfirst-dev usr/include 'usr/lib/libeasyfirst.*' "usr/lib/$multiarch/libeasyfirst.*" \
    usr/lib/pkgconfig "usr/lib/$multiarch/pkgconfig"
move python3-easyfirst usr/lib/python3
move easyfirst usr/bin usr/lib/easyfirst usr/lib/systemd usr/share/man usr/share/bash-completion usr/share/zsh \
    usr/share/fish usr/share/doc/easyfirst usr/share/easyfirst
left=$(find "$root" ! -type d)
if [ -n "$left" ]; then
    echo "no package has these files: apps/package/deb.sh must say which has:"
    echo "$left"
    exit 1
fi

# Opened when an AVIF or HEIC comes, so that dpkg-shlibdeps does not see it.
opened=
grep -q 'libheif[.]so[.]1' "$folder/easyfirst/usr/bin/easyfirst" && opened="libheif1"
depends=$(libraries "$folder/easyfirst/usr/bin/easyfirst") && [ -n "$depends" ] || exit 1
needs_library "$folder/easyfirst/usr/bin/easyfirst" && depends="$runtime (= $version), $depends"
build easyfirst "$architecture" science "$depends, easyfirst-model (= $version)" \
    "masked-diffusion language model with vision" "$opened" <<'TEXT'
Answers questions about images, translates and summarizes with a language
model that fills masked tokens in, the easy ones first. Also trains,
evaluates and benchmarks such models.
TEXT
build easyfirst-model all science "" "small bundled model of easyfirst" <<'TEXT'
A small model that easyfirst uses when no other is named.
TEXT
if [ -d "$folder/$runtime" ]; then
    library=$(find "$folder/$runtime" -name 'libeasyfirst.so.*' -type f | head -n 1)
    depends=$(libraries "$library") && [ -n "$depends" ] || exit 1
fi
build "$runtime" "$architecture" libs "$depends" "masked-diffusion language model, shared library" "$opened" <<'TEXT'
Answers, translates and summarizes from within a C or C++ program.
TEXT
build libeasyfirst-dev "$architecture" libdevel "$runtime (= $version)" \
    "masked-diffusion language model, development files" <<'TEXT'
The header, the static library and the description for pkg-config.
TEXT
build python3-easyfirst all python "python3, $runtime (= $version)" \
    "masked-diffusion language model, for Python" <<'TEXT'
The library's functions for Python, by ctypes.
TEXT
