# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the installers share; read by them, with DESTDIR, PREFIX, SYSCONFDIR and PYTHON set.

# code LIB DIRECTORY...: puts packages of Python into LIB, in place of what is there.
code() {
    into=$1
    shift
    # In place at once: a program that runs may still want to import something.
    fresh=$DESTDIR$into.new
    rm -rf "$fresh"
    mkdir -p "$fresh"
    cp -R "$@" "$fresh/"
    find "$fresh" -name __pycache__ -prune -exec rm -rf {} +
    chmod -R u=rwX,go=rX "$fresh"
    # Now, because who runs it may not write here. By hash: the times of files may change when they
    # are packed, and what has been compiled would count for nothing.
    "$PYTHON" -m compileall -q --invalidation-mode checked-hash -s "$fresh" -p "$into" "$fresh"
    rm -rf "$DESTDIR$into"
    mv "$fresh" "$DESTDIR$into"
}

# launcher PROGRAM MODULE LIB...: a program that runs main() of a module, with these in its path.
launcher() {
    program=$1 module=$2
    shift 2
    path=$(printf '"%s", ' "$@")
    mkdir -p "$DESTDIR${program%/*}"
    sed "s|@PYTHON@|$PYTHON|; s|@PATH@|${path%, }|; s|@MODULE@|$module|" packaging/launcher.in >"$DESTDIR$program"
    chmod 755 "$DESTDIR$program"
}
