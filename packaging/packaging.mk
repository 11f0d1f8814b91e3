# SPDX-License-Identifier: GPL-2.0-or-later
# Installation and packages; part of the Makefile, which sets PYTHON and READY. All of it works in a clean checkout.

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' vdsmcinder/__init__.py)

DESTDIR :=
PREFIX := /usr/local
SYSCONFDIR := /etc
BUNDLED := build/bundled
# Goes behind the packages' release number, for instance .el9.
DIST :=
# The end of the names of packages as they are built now; others may lie beside them.
BUILT = -$(VERSION)-1$(or $(DIST),$(shell rpm --eval '%{?dist}'))

SOURCES := dist/vdsm-cinder-$(VERSION).tar.gz
BUNDLE := dist/vdsm-cinder-bundled-$(VERSION).tar.gz
# The same content gives the same archive.
TAR := tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime=@0
# A Debian's rpm knows of no package, so that what a build needs is installed by `make setup` there.
DEBIAN := $(wildcard /etc/debian_version)
RPMBUILD = rpmbuild --quiet --define '_topdir $(CURDIR)/build/rpm' \
	--define '_sourcedir $(CURDIR)/dist' --define '_srcrpmdir $(CURDIR)/dist' \
	--define '_rpmdir $(CURDIR)/dist' $(if $(DIST),--define 'dist $(DIST)') \
	--define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm'

.PHONY: install uninstall install-engine uninstall-engine sources srpm rpm rpmlint audit release

install: $(BUNDLED)  ## install into PREFIX (/usr/local), for packagers below DESTDIR
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' PYTHON='$(PYTHON)' \
		packaging/install $(BUNDLED)

uninstall:  ## remove what install put there, but not the configuration
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' packaging/uninstall

# Once downloaded, nothing here needs the network again.
build/bundled: packaging/bundled.txt
	@echo "Python packages for $@, from packaging/bundled.txt"
	@rm -rf build/bundling $@
	@$(PYTHON) -m venv build/bundling
	@packaging/retry build/bundling/bin/pip --quiet --disable-pip-version-check install \
		--no-deps --no-compile --require-hashes --use-pep517 --target $@ -r packaging/bundled.txt
	@# Nothing of it is a program.
	@rm -rf $@/bin
	@find $@ -name '*.py' -exec sed -i '1{/^#!/d}' {} + -exec chmod a-x {} +
	@find $@ -path '*.dist-info/*' -type f ! -name METADATA ! -path '*LICENSE*' ! -path '*NOTICE*' -delete
	@rm -rf build/bundling
	@touch $@

install-engine: $(BUNDLED)  ## install the engine, which hosts do not need
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' PYTHON='$(PYTHON)' \
		packaging/install-engine $(BUNDLED)

uninstall-engine:  ## remove what install-engine put there, but not what the engine keeps
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' packaging/uninstall-engine

sources: $(BUNDLED) $(if $(DEBIAN),$(READY))
	@mkdir -p dist
	@git ls-files -z | $(TAR) --gzip --null --files-from=- --transform='s|^|vdsm-cinder-$(VERSION)/|' \
		--file=$(SOURCES)
	@$(TAR) --gzip --directory=$(dir $(BUNDLED)) --file=$(BUNDLE) $(notdir $(BUNDLED))

srpm: sources  ## the source package, in dist/
	@$(RPMBUILD) -bs --nodeps vdsm-cinder.spec
	@ls dist/*$(BUILT).src.rpm

rpm: sources  ## the source and binary packages, in dist/
	@$(RPMBUILD) -ba $(if $(DEBIAN),--nodeps) vdsm-cinder.spec
	@ls dist/*$(BUILT).src.rpm dist/*$(BUILT).noarch.rpm

rpmlint: rpm  ## what rpmlint says of the packages
	cd dist && rpmlint --config ../packaging/rpmlint.toml ../vdsm-cinder.spec *$(BUILT).src.rpm *$(BUILT).noarch.rpm

# In an environment of its own, because the tests need none of what it brings.
build/audit:
	@$(PYTHON) -m venv $@
	@packaging/retry $@/bin/pip --quiet --disable-pip-version-check install pip-audit \
		|| { rm -rf $@; exit 1; }

audit: build/audit  ## vulnerabilities that are known of the packages that ours bundle
	@$(PYTHON) packaging/audit.py build/audit/bin/pip-audit packaging/bundled.txt

# Published packages are built from a tag, so what is tagged is what is committed.
release: $(READY)  ## tag the version that code, spec and changelog have
	@git diff --quiet HEAD || { echo "commit first what has changed: a tag is of what is committed" >&2; exit 1; }
	@$(BIN)/pytest -q tests/unit/test_packaging.py
	git tag --annotate --message 'vdsm-cinder $(VERSION)' v$(VERSION)
