# easyfirst - build, test, install. `make help` lists the targets.
#
# Variables: CC, CXX, CFLAGS (added to our own), BUILD (folder of the objects), PREFIX, NVCC,
# CUDA_ARCH, WEBP=, GIF=, HEIF= (empty: without these image formats), WERROR= (empty: warnings do not
# stop the build), V=1 (show the commands).

BUILD   ?= build
PREFIX  ?= /usr/local
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CXX     := $(if $(filter default,$(origin CXX)),g++,$(CXX))
WERROR  ?= -Werror
CFLAGS  ?= -O3 -g

# For clang without libomp: gcc's header of OpenMP alone, as the rest of its folder would come before clang's.
SERIAL_OPENMP = -fopenmp=libgomp -idirafter $(shell mkdir -p build/omp && \
                ln -sf "$$(gcc -print-file-name=include/omp.h)" build/omp/omp.h && echo build/omp)

# No fast-math: a NaN must stay a NaN, or tests that look for one are blind. -fno-math-errno and
# -fno-trapping-math change no result.
WARN     := -Wall -Wextra -Wshadow -Wpointer-arith -Wno-missing-field-initializers -Wno-format-truncation $(WERROR)
# clang knows other warnings; that a loop cannot be vectorised with a sanitizer is none. Its OpenMP is
# libomp; where that is missing, gcc's header and library do, and clang compiles loops as they stand,
# for one thread.
CLANG    := $(findstring clang,$(CC))
OPENMP   := -fopenmp
ifneq ($(CLANG),)
WARN     += -Wno-unknown-warning-option -Wno-pass-failed -Wno-unused-but-set-variable
OPENMP   := $(if $(shell echo 'int main(void) { return omp_get_max_threads(); }' | \
                $(CC) -fopenmp -include omp.h -x c - -o /dev/null 2>/dev/null && echo there),-fopenmp,$(SERIAL_OPENMP))
WARN     += $(if $(findstring libgomp,$(OPENMP)),-Wno-unused-variable -Wno-unused-parameter)
# gcc's word for it, which sources ask for.
OPENMP   += $(if $(findstring address,$(SANITIZE)),-D__SANITIZE_ADDRESS__=1)
# Of C++'s own checks these need a library that only the C++ compiler would link.
CXX_LESS := $(if $(findstring undefined,$(SANITIZE)),-fno-sanitize=vptr -fno-sanitize=function)
endif
CWARN    := $(WARN) -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
# Every object can be part of the shared library, which exports what easyfirst.h declares and nothing
# else; hidden names cost no detour, so that the same objects make the program.
COMMON   := -I. -MMD -MP $(OPENMP) -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -D_GNU_SOURCE
ALL_C     = -std=c11 $(COMMON) $(CWARN) $(CFLAGS) $(SANITIZE)
ALL_CXX   = -std=c++17 $(COMMON) $(WARN) $(CFLAGS) $(SANITIZE) $(CXX_LESS)

# Image formats by libraries that a build may lack: WEBP=, GIF=, HEIF= leave one out. libheif is
# opened when it is needed, for it brings many libraries. giflib has no description for pkg-config
# everywhere, so that its header and library are tried.
PKG_CONFIG ?= pkg-config
WEBP       ?= $(shell $(PKG_CONFIG) --exists libwebp libwebpdemux 2>/dev/null && echo yes)
GIF        ?= $(shell echo 'int main(void) { return !DGifOpen(0, 0, 0); }' | \
                $(CC) -include gif_lib.h -x c - -o /dev/null -lgif 2>/dev/null && echo yes)
HEIF       ?= $(shell $(PKG_CONFIG) --exists libheif 2>/dev/null && echo yes)
# Likewise CLD2 (CLD2=), which tells the languages of training data; it has no such description at all.
CLD2       ?= $(shell printf '\043include <stdio.h>\n\043include <cld2/public/encodings.h>\n\043include <cld2/public/compact_lang_det.h>\nint main() { return CLD2::isDataDynamic(); }' | \
                $(CXX) -x c++ - -o /dev/null -lcld2 2>/dev/null && echo yes)
FORMATS    := $(if $(WEBP),-DEASYFIRST_WEBP $(shell $(PKG_CONFIG) --cflags libwebp libwebpdemux)) \
              $(if $(GIF),-DEASYFIRST_GIF) \
              $(if $(HEIF),-DEASYFIRST_HEIF $(shell $(PKG_CONFIG) --cflags libheif))
FORMAT_LIBS := $(if $(WEBP),$(shell $(PKG_CONFIG) --libs libwebp libwebpdemux)) $(if $(GIF),-lgif)

LIBS     := $(FORMAT_LIBS) $(if $(CLD2),-lcld2) -ldnnl -lpng -lz -lzip -ljpeg -lsentencepiece -ljansson -lcrypto -lunistring -lpcre2-8 -lstdc++ -lm -lpthread -ldl
# What only the program needs: libedit, with which `chat` edits lines.
PROGRAM_LIBS := -ledit

# CPU kernels that gain from wide vectors are compiled once for each instruction set and chosen when
# the program starts (kernels/cpu/isa.h); on other processors than x86-64 only the plain one exists.
ISA_base   :=
ISA_avx2   := -mavx2 -mfma
ISA_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
ISAS       := base $(if $(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null)),avx2 avx512)

ROOMS   := kernels kernels/comm kernels/cpu vision language projector data/files data/formats data/checkpoints data/sets data/metrics
ISA_SRC := $(wildcard kernels/cpu/isa/*.c)
LIB_SRC := $(wildcard $(ROOMS:%=%/*.c))
LIB_CXX := $(wildcard $(ROOMS:%=%/*.cc))
APP_SRC := $(wildcard apps/*.c apps/*/*.c)
# `easyfirst serve` is part of the program where libmicrohttpd is.
HTTPD_LIBS := $(shell $(PKG_CONFIG) --libs libmicrohttpd 2>/dev/null)
ifeq ($(HTTPD_LIBS),)
APP_SRC := $(filter-out apps/serve/%,$(APP_SRC))
else
$(BUILD)/apps/serve.o: COMMON += -DEASYFIRST_MICROHTTPD
PROGRAM_LIBS += $(HTTPD_LIBS)
endif
TESTS   := $(patsubst tests/%.c,%,$(wildcard tests/*/test_*.c))
ifeq ($(HTTPD_LIBS),)
TESTS   := $(filter-out apps/test_image_store,$(TESTS)) # a part of the server
endif
TESTLIB := $(wildcard tests/*.c)
# The tests of these names, with their folders.
tests_of = $(foreach name,$(1),$(filter %/$(name),$(TESTS)))

# Where nvcc is found (NVCC= leaves it out) the CUDA backend is made, too: a library of its own, which
# the program opens when a GPU is wanted. Code is made for the architectures in CUDA_ARCH (those of the
# GPUs here, else Ampere's and Hopper's), which others of the same first digit run, too, and as PTX of
# the last one for later chips.
NVCC      ?= $(if $(EMULATED),,$(shell command -v nvcc 2>/dev/null))
ifneq ($(NVCC),)
CUDA_HERE := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -nu)
CUDA_ARCH ?= $(or $(CUDA_HERE),80 90)
CUDA_SRC  := $(wildcard kernels/cuda/*.cu)
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(NVCC))
CUDA_CODE := $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a)) \
             -gencode arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH))
ALL_CUDA  := -O3 -lineinfo -std=c++17 -I. -MMD -MP -Xcompiler -fPIC,-fvisibility=hidden $(CUDA_CODE)
CUDA_LIB  := $(CUDA_HOME)/lib64
# cuDNN's header, with the toolkit or in the compiler's own path.
ifeq ($(wildcard $(CUDA_HOME)/include/cudnn.h)$(shell printf '\043include <cudnn.h>' | $(CXX) -E - >/dev/null 2>&1 && echo there),)
$(error $(NVCC) is here, but cudnn.h is not: install cuDNN 9 for development, or leave the GPU out with `make NVCC=`)
endif
endif

# EMULATED=1 compiles the same sources for the CPU instead: the tests of kernels without a GPU
# (tests/emulator/README.md).
ifdef EMULATED
EMU_SRC   := $(filter-out kernels/cuda/attention_cudnn.cu,$(wildcard kernels/cuda/*.cu))
LIB_CXX   += $(wildcard tests/emulator/*.cc)
COMMON    += -DEASYFIRST_EMULATED -Itests/emulator
endif

LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(LIB_CXX:%.cc=$(BUILD)/%.o) $(EMU_SRC:%.cu=$(BUILD)/%.emu.o) \
           $(foreach isa,$(ISAS),$(ISA_SRC:%.c=$(BUILD)/%.$(isa).o))
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o) $(patsubst %.cc,$(BUILD)/%.o,$(wildcard apps/*/*.cc))
# What the tests may call of the program: everything but main itself.
APP_LIB := $(filter-out $(BUILD)/apps/main.o,$(APP_OBJ))
LIBRARY := $(BUILD)/libeasyfirst.a
PROGRAM := $(BUILD)/easyfirst

# What other programs use: projector/easyfirst.h over all of that, as a shared library, and as one
# object in an archive. Neither shows anything but ef_*. A sanitizer's build, and the emulator's, have
# none.
VERSION := $(shell sed -n 's/^\#define EF_VERSION  *"\(.*\)"/\1/p' projector/easyfirst.h)
# Before 1.0 each version has a soname of its own: structures that are passed in arrays may grow.
SONAME  := libeasyfirst.so.$(VERSION)
PUBLIC  := $(if $(SANITIZE)$(EMULATED),,$(BUILD)/libeasyfirst.so.$(VERSION) $(BUILD)/public/libeasyfirst.a)
PUBLIC_RUNPATH := -Wl,--enable-new-dtags,-rpath,'$$ORIGIN:$$ORIGIN/easyfirst:$$ORIGIN/../easyfirst'
# Of the program's own functions the CUDA library has copies: those few that it calls.
GPU_LIB := $(if $(CUDA_SRC),$(BUILD)/libeasyfirst-cuda.so)
GPU_OBJ := $(CUDA_SRC:%.cu=$(BUILD)/%.cu.o) $(BUILD)/kernels/error.pic.o $(BUILD)/kernels/clean_text.pic.o $(BUILD)/kernels/tensor.pic.o $(BUILD)/kernels/int8.pic.o $(BUILD)/kernels/parts.pic.o
# Where programs look for it: beside themselves, and where `make install` and `make dist` put it.
RUNPATH := -Wl,--enable-new-dtags,-rpath,'$$ORIGIN:$$ORIGIN/..:$$ORIGIN/../lib/easyfirst:$$ORIGIN/../lib'
TESTBIN := $(TESTS:%=$(BUILD)/tests/%)

# One short line for each step; V=1 shows the commands.
Q   := $(if $(V),,@)
say  = @$(if $(V),:,printf '  %-5s%s\n' '$(1)' '$(2)')

.PHONY: fuzz fuzz-build fuzz-tests stages all demo deps test run-tests emulated asan dist gpu-check install uninstall clean help \
        format headers lint man completions install-docs uninstall-docs deb build-deps FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAM) $(GPU_LIB) $(PUBLIC) ## the program and the library, optimised (the default)

# Objects depend on this file, which changes when the compiler or a flag does.
$(BUILD)/flags: FORCE | $(BUILD)/needs
	@mkdir -p $(BUILD)
	@printf '%s\n' '$(CC) $(ALL_C)' '$(CXX) $(ALL_CXX)' '$(ISAS) $(NVCC) $(ALL_CUDA)' '$(HTTPD_LIBS)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Likewise what depends on the image formats of this build.
$(BUILD)/formats: FORCE | $(BUILD)/needs
	@mkdir -p $(BUILD)
	@printf '%s\n' '$(FORMATS)' 'CLD2=$(CLD2)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
FORMAT_OBJ := $(patsubst %,$(BUILD)/vision/%.o,format_table webp gif heif)
$(FORMAT_OBJ): $(BUILD)/formats
$(FORMAT_OBJ): COMMON += $(FORMATS)
$(BUILD)/data/formats/languages.o: $(BUILD)/formats
$(BUILD)/data/formats/languages.o: COMMON += $(if $(CLD2),-DEASYFIRST_CLD2)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_C) -c $< -o $@

# Brought in by the assembler, which tells nobody (apps/show/page_parts.c).
$(BUILD)/apps/show/page_parts.o: $(wildcard apps/show/page/*)
$(BUILD)/apps/serve/page.o: $(wildcard apps/serve/page/* apps/show/page/*)

$(BUILD)/%.o: %.cc $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(ALL_CXX) -c $< -o $@

$(BUILD)/%.cu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(ALL_CUDA) -c $< -o $@

$(BUILD)/%.pic.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$< (for a library))
	$(Q)$(CC) $(ALL_C) -fPIC -fvisibility=hidden -c $< -o $@

$(BUILD)/libeasyfirst-cuda.so: $(GPU_OBJ)
	$(call say,LINK,$@)
	$(Q)$(CXX) -shared -o $@ $^ -Wl,-z,defs -Wl,-rpath,$(CUDA_LIB) -L$(CUDA_LIB) \
	    -lcublasLt -lcudnn -lcudart_static -ldl -lrt -lpthread

$(BUILD)/%.emu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$< (emulated))
	$(Q)$(CXX) $(ALL_CXX) -Wno-unknown-pragmas -x c++ -c $< -o $@

# -Wno-psabi: the vector types of these files never cross a call that is not inlined.
define isa_rule
$(BUILD)/kernels/cpu/isa/%.$(1).o: kernels/cpu/isa/%.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(call say,CC,$$< ($(1)))
	$$(Q)$(CC) $(ALL_C) -Wno-psabi -ffp-contract=fast $(ISA_$(1)) -DISA=$(1) -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

$(LIBRARY): $(LIB_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

$(BUILD)/libeasyfirst.so: $(BUILD)/libeasyfirst.so.$(VERSION) ;

$(BUILD)/libeasyfirst.so.$(VERSION): $(LIB_OBJ) projector/easyfirst.map
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_C) -shared -o $@ $(LIB_OBJ) -Wl,-soname,$(SONAME) -Wl,-z,defs \
	    -Wl,--version-script=projector/easyfirst.map $(LDFLAGS) $(PUBLIC_RUNPATH) $(LIBS)
	@ln -sf $(SONAME) $(BUILD)/libeasyfirst.so

# All objects as one, of which all other names are its own.
$(BUILD)/public/libeasyfirst.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(CC) -r -nostdlib -Wl,--force-group-allocation -o $(@D)/easyfirst.o $(LIB_OBJ)
	$(Q)objcopy -w --keep-global-symbol='ef_*' $(@D)/easyfirst.o
	$(Q)ar rcs $@ $(@D)/easyfirst.o && rm $(@D)/easyfirst.o

$(PROGRAM): $(APP_OBJ) $(LIBRARY)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_C) -o $@ $(APP_OBJ) $(LIBRARY) $(LDFLAGS) $(RUNPATH) $(PROGRAM_LIBS) $(LIBS)

$(TESTBIN): %: %.o $(TESTLIB:%.c=$(BUILD)/%.o) $(APP_LIB) $(LIBRARY)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_C) -o $@ $^ $(LIBRARY) $(LDFLAGS) $(RUNPATH) -lcmocka $(PROGRAM_LIBS) $(LIBS)

# The library that makes the n-th call fail (LD_PRELOAD), and the test that uses it. No sanitizer: it
# is under the program's own.
$(BUILD)/tests/libfaults.so: tests/faults/preload.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -std=c11 -O1 -g -D_GNU_SOURCE $(WARN) -fPIC -shared -o $@ $< -ldl
$(BUILD)/tests/apps/test_faults: $(BUILD)/tests/faults/snapshot.o | $(BUILD)/tests/libfaults.so

# The comparison program of tests/reference/full_size.py; not part of the tests.
$(BUILD)/tests/stages: $(BUILD)/tests/reference/stages.o $(APP_LIB) $(LIBRARY)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_C) -o $@ $^ $(LDFLAGS) $(RUNPATH) $(PROGRAM_LIBS) $(LIBS)
stages: $(BUILD)/tests/stages ## the program that tests/reference/full_size.py compares with torch

# What a build needs: a compiler, a command or a header that is looked for, and the Debian package that
# brings it.
NEEDS := run:CC=gcc run:CXX=g++ cmd:ar=binutils \
         hdr:dnnl.h=libdnnl-dev hdr:png.h=libpng-dev hdr:zlib.h=zlib1g-dev hdr:jpeglib.h=libjpeg-dev \
         hdr:jansson.h=libjansson-dev hdr:unigbrk.h=libunistring-dev hdr:pcre2posix.h=libpcre2-dev \
         hdr:openssl/evp.h=libssl-dev hdr:histedit.h=libedit-dev hdr:zip.h=libzip-dev \
         hdr:sentencepiece_processor.h=libsentencepiece-dev
# What a build can do without, and `make deps` installs, too, unless WEBP=, GIF=, HEIF= or CLD2= is given.
auto_found    = $(filter file,$(origin $(1)))
FORMAT_NEEDS := $(if $(call auto_found,WEBP),cmd:pkg-config=pkg-config pkg:libwebpdemux=libwebp-dev) \
                $(if $(call auto_found,GIF),hdr:gif_lib.h=libgif-dev) \
                $(if $(call auto_found,HEIF),cmd:pkg-config=pkg-config pkg:libheif=libheif-dev) \
                $(if $(call auto_found,CLD2),hdr:cld2/public/encodings.h=libcld2-dev)
# Parts of the program that are left out where these are missing: serve.
WANTS := cmd:pkg-config=pkg-config hdr:microhttpd.h=libmicrohttpd-dev
TEST_NEEDS := hdr:cmocka.h=libcmocka-dev cmd:curl=curl cmd:mpirun=openmpi-bin
CMOCKA_FIRST := \#include <stdarg.h>\n\#include <stddef.h>\n\#include <setjmp.h>\n\#include <stdint.h>\n\#include <stdio.h>\n

# Shell commands that set `missing` to the packages of those needs that are not met.
find_missing = missing=; for need in $(1); do \
	    what=$${need%%=*}; package=$${need\#*=}; name=$${what\#*:}; \
	    case $$what in \
	    run:CC) $(CC) -E -x c /dev/null >/dev/null 2>&1 ;; \
	    run:CXX) $(CXX) -E -x c++ /dev/null >/dev/null 2>&1 ;; \
	    cmd:*) command -v $$name >/dev/null 2>&1 ;; \
	    pkg:*) $(PKG_CONFIG) --exists $$name 2>/dev/null ;; \
	    hdr:*) case $$name in sentencepiece*) lang=c++ ;; *) lang=c ;; esac; \
	           printf '$(CMOCKA_FIRST)\#include <%s>\n' $$name | $(CC) -E -x $$lang - >/dev/null 2>&1 ;; \
	    esac || missing="$$missing $$package"; \
	done

# Installs what is missing, after naming it; with DEPS=no it is only named.
install_missing = $(call find_missing,$(1)); \
	[ -z "$$missing" ] && exit 0; \
	echo "missing packages:$$missing"; \
	[ "$(DEPS)" != no ] || { echo "install them (DEPS=no: make does not): apt-get install$$missing"; exit 1; }; \
	command -v apt-get >/dev/null 2>&1 || { \
	    echo "no apt here: install these (Debian's names) and run make again"; exit 1; }; \
	[ "$$(id -u)" = 0 ] && sudo= || sudo=sudo; \
	echo "about to install them: $$sudo apt-get install$$missing (DEPS=no only names them)"; \
	$$sudo apt-get update -q && \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -q --no-install-recommends $$missing

deps: ## install what a build and the tests need, with apt (and sudo when not root); DEPS=no only names it
	@$(call install_missing,$(NEEDS) $(FORMAT_NEEDS) $(WANTS) $(TEST_NEEDS))

build-deps:
	@$(call install_missing,$(NEEDS) $(FORMAT_NEEDS))

# Looked for once in a build folder, before anything is compiled.
$(BUILD)/needs:
	@$(call find_missing,$(NEEDS)); [ -z "$$missing" ] || { \
	    echo "missing packages:$$missing"; \
	    echo "install them with \`make deps\`, or: apt-get install$$missing"; exit 1; }
	@mkdir -p $(@D) && touch $@

# On all cores, unless the caller said how many jobs there shall be.
JOBS := $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))

test: deps ## set up what is missing, build, run every test
	@$(MAKE) --no-print-directory $(JOBS) run-tests

# The tests of what a GPU computes run twice: on the CPU, and with the CUDA kernels emulated there. A
# sanitizer does not know the emulator's stacks: its build leaves them out.
GPU_TESTS := $(call tests_of,test_ops test_conv2d test_linear test_int8 test_attention test_backward test_train_ops test_adamw test_optimizer test_moments test_muon \
             test_stack test_models test_variants test_gradients test_replay test_segment test_devices test_llama_ops test_llama test_encoders)
EMU_TESTS := $(if $(SANITIZE)$(EMULATED),,$(GPU_TESTS:%=$(BUILD)/emulated/tests/%))

emulated: ## the CUDA kernels' tests, for the CPU; `make EMULATED=1 BUILD=folder` makes the program so
	$(if $(EMU_TESTS),@$(MAKE) --no-print-directory EMULATED=1 BUILD=$(BUILD)/emulated CFLAGS=-O1 \
	    $(EMU_TESTS) $(BUILD)/emulated/easyfirst)

# Fuzzing: every target of tests/fuzz in one program, by clang's libFuzzer with its sanitizers, in a
# build of its own; the inputs that it found stay in build/fuzz/corpus for the next time, and inputs
# that failed are in build/fuzz/findings.
FUZZ_CC      ?= clang
FUZZ_CXX     ?= clang++
FUZZ_SECONDS ?= 60
FUZZ_BUILD   := build/fuzz
FUZZ_SRC     := $(filter-out tests/fuzz/libfuzzer.c,$(wildcard tests/fuzz/*.c))
FUZZ_FLAGS   ?= -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_CFLAGS  ?= -O1
# Whether this machine can: the compiler with the runtime of its fuzzer.
FUZZ_HERE     = $(shell echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n); \
    int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return n > 0 && *d > 127; }' | \
    $(FUZZ_CC) -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null && echo there)

fuzz: deps fuzz-build ## fuzz all parsers (clang): FUZZ_SECONDS=60 for each of FUZZ_TARGETS="png ..."
	@[ -x $(FUZZ_BUILD)/easyfirst-fuzz ] && \
	    FUZZ_JOBS=$(FUZZ_JOBS) FUZZ_TARGETS="$(FUZZ_TARGETS)" sh tests/fuzz/run.sh $(FUZZ_BUILD) $(FUZZ_SECONDS)

fuzz-build:
	@[ "$(FUZZ_HERE)" = there ] || { echo "fuzzing needs clang with libFuzzer: $(FUZZ_CC) cannot" \
	    "build with -fsanitize=fuzzer (Debian: apt-get install clang libclang-rt-14-dev)"; exit 1; }
	@$(MAKE) --no-print-directory $(JOBS) $(FUZZ_BUILD)/easyfirst-fuzz BUILD=$(FUZZ_BUILD) CC="$(FUZZ_CC)" \
	    CXX="$(FUZZ_CXX)" NVCC= OPENMP="$(SERIAL_OPENMP)" CFLAGS="$(FUZZ_CFLAGS) -g -DSMALL_WINDOW=257" \
	    SANITIZE="-fsanitize=fuzzer-no-link $(FUZZ_FLAGS)"

$(BUILD)/easyfirst-fuzz: $(BUILD)/tests/fuzz/libfuzzer.o $(FUZZ_SRC:%.c=$(BUILD)/%.o) $(APP_LIB) $(LIBRARY)
	$(call say,LINK,$@)
	$(Q)$(CXX) -fsanitize=fuzzer $(FUZZ_FLAGS) $(OPENMP) -o $@ $^ $(LDFLAGS) $(PROGRAM_LIBS) $(LIBS)

# The inputs that once failed, with every target, in any build.
$(BUILD)/tests/apps/test_fuzz_regressions: $(FUZZ_SRC:%.c=$(BUILD)/%.o)

# Where clang is, 10 seconds of each fuzz target are part of the tests (not of asan's).
FUZZ_TESTS = $(if $(SANITIZE),,tests/fuzz/fuzz.sh)
fuzz-tests:
	@[ "$(FUZZ_HERE)" != there ] || $(MAKE) --no-print-directory fuzz-build

# What is installed, in a folder of the test's, by a make that is given the variables of this one.
INSTALL_TESTS := $(if $(PUBLIC),tests/install_test.sh)

run-tests: headers $(PROGRAM) $(GPU_LIB) $(PUBLIC) $(TESTBIN) emulated $(if $(SANITIZE),,fuzz-tests)
	@EASYFIRST=$(PROGRAM) LIBRARY=$(LIBRARY) FUZZ_BUILD=$(FUZZ_BUILD) sh tests/run.sh $(TESTBIN) $(EMU_TESTS) tests/page_browser.sh tests/serve_browser.sh tests/eval_browser.sh \
	    tests/gpu_check_test.sh tests/docs_test.sh tests/manuals_test.sh tests/layout_test.sh tests/mpi_test.sh tests/layers_test.sh $(INSTALL_TESTS) $(FUZZ_TESTS)

asan: deps ## the tests under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory $(JOBS) run-tests BUILD=build/asan \
	    CFLAGS="-O1 -g -fno-omit-frame-pointer" \
	    SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=undefined"

headers: ## every header compiles alone
	@for h in $$(ls kernels/*.h kernels/cpu/*.h vision/*.h language/*.h projector/*.h data/*/*.h \
	    apps/*.h apps/*/*.h); do \
	    $(CC) -std=c11 -I. -D_GNU_SOURCE $(CWARN) -fsyntax-only -x c $$h || exit 1; done

demo: build-deps ## a first look: questions about images, a translation, a summary
	@$(MAKE) --no-print-directory $(JOBS) $(PROGRAM)
	@EASYFIRST=$(PROGRAM) sh data/bundled/demo.sh

# What runs on a machine without a compiler and Debian's packages: the program, the tests of what a GPU
# computes, all in one, and the libraries of both but the C library, which every system has, and
# CUDA's, which are large and come with its toolkit, or with PyTorch: tests/gpu_check.sh finds them. The
# archive is the same without the bundled model, for where the sources are, too.
DIST      ?= dist
DIST_OBJ  := $(BUILD)/dist
DIST_LINK := $(LDFLAGS) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib' -s
DIST_KEEP := libc|libm|libdl|librt|libpthread|libresolv|ld-linux.*|libcuda|libcudart|libcublas.*|libcudnn.*|libnv.*
# Of the tests beside the GPU's those of the whole program, which may run on one, too.
DIST_TESTS := $(GPU_TESTS) $(call tests_of,test_infill test_apps test_train)

# Each test program's main gets its own name, for the one that chooses, and its group of tests goes to
# that, too (tests/reference/all_tests.c).
$(DIST_OBJ)/%.o: $(BUILD)/tests/%.o
	@mkdir -p $(@D)
	$(Q)objcopy --redefine-sym main=main_$(notdir $*) --redefine-sym _cmocka_run_group_tests=run_group $< $@

$(DIST_OBJ)/easyfirst-tests: tests/reference/all_tests.c $(DIST_TESTS:%=$(DIST_OBJ)/%.o) \
                             $(TESTLIB:%.c=$(BUILD)/%.o) $(APP_LIB) $(LIBRARY)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_C) -DTESTS='$(foreach t,$(DIST_TESTS),TEST($(notdir $t)))' -o $@ $^ $(DIST_LINK) -lcmocka $(PROGRAM_LIBS) $(LIBS)

$(DIST_OBJ)/easyfirst: $(APP_OBJ) $(LIBRARY)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_C) -o $@ $^ $(DIST_LINK) $(PROGRAM_LIBS) $(LIBS)

dist: $(DIST_OBJ)/easyfirst $(DIST_OBJ)/easyfirst-tests $(GPU_LIB) ## a folder, and an archive, to carry to a machine with a GPU
	@rm -rf $(DIST) && mkdir -p $(DIST)/bin $(DIST)/lib $(DIST)/share/easyfirst $(DIST)/tests/reference
	@cp $(DIST_OBJ)/easyfirst $(DIST_OBJ)/easyfirst-tests $(DIST)/bin
	$(if $(GPU_LIB),@cp $(GPU_LIB) $(DIST)/lib && strip $(DIST)/lib/libeasyfirst-cuda.so)
	@ldd $(DIST)/bin/* | awk '$$2 == "=>" && $$3 ~ /^\// {print $$3}' | sort -u | \
	    grep -vE '/($(DIST_KEEP))\.so' | xargs -I{} cp -L {} $(DIST)/lib
	@if [ -d data/bundled/model ]; then cp -r data/bundled/model data/bundled/images $(DIST)/share/easyfirst; fi
	@cp -r data/presets data/reproduce data/causal $(DIST)/share/easyfirst
	@cp -r tests/golden tests/run.sh tests/gpu_check.sh $(DIST)/tests
	@cp tests/reference/gpu_speed.py $(DIST)/tests/reference
	@tar -C $(dir $(abspath $(DIST))) --exclude=share -czf $(DIST).tar.gz $(notdir $(DIST))
	@du -sm $(DIST) $(DIST).tar.gz | awk '{print "  " $$2 ": " $$1 " MiB"}'

gpu-check: ## on a machine with a GPU: every test and benchmark there, into tests/gpu-report.md
	@sh tests/gpu_check.sh

# Folders as they are used; DESTDIR is put in front where files are written.
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
SHAREDIR   ?= $(PREFIX)/share/easyfirst
DOCDIR     ?= $(PREFIX)/share/doc/easyfirst
PYTHONDIR  ?= $(PREFIX)/lib/python3/dist-packages
PUT        := install -D -m 644

install: $(PROGRAM) $(GPU_LIB) $(PUBLIC) ## the program, the library, its header and the small model, to $(PREFIX)
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(BINDIR)/easyfirst
	$(if $(GPU_LIB),$(PUT) $(GPU_LIB) $(DESTDIR)$(PREFIX)/lib/easyfirst/libeasyfirst-cuda.so)
	$(PUT) $(BUILD)/libeasyfirst.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libeasyfirst.so.$(VERSION)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libeasyfirst.so
	$(PUT) $(BUILD)/public/libeasyfirst.a $(DESTDIR)$(LIBDIR)/libeasyfirst.a
	$(PUT) projector/easyfirst.h $(DESTDIR)$(INCLUDEDIR)/easyfirst.h
	@mkdir -p $(DESTDIR)$(LIBDIR)/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@SHAREDIR@|$(SHAREDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(LIBS) $(OPENMP)|' \
	    projector/easyfirst.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/easyfirst.pc
	$(PUT) projector/python/easyfirst.py $(DESTDIR)$(PYTHONDIR)/easyfirst.py
	$(PUT) LICENSE $(DESTDIR)$(DOCDIR)/LICENSE
	cd data/bundled && find model images -type f -exec $(PUT) {} $(abspath $(DESTDIR)$(SHAREDIR))/{} \;
	cd data && find presets reproduce causal -name '*.json' -exec $(PUT) {} $(abspath $(DESTDIR)$(SHAREDIR))/{} \;

uninstall: ## take all of that away again; folders that others use, too, stay
	rm -f $(DESTDIR)$(BINDIR)/easyfirst $(DESTDIR)$(INCLUDEDIR)/easyfirst.h \
	    $(DESTDIR)$(LIBDIR)/libeasyfirst.so.$(VERSION) \
	    $(DESTDIR)$(LIBDIR)/libeasyfirst.so $(DESTDIR)$(LIBDIR)/libeasyfirst.a \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/easyfirst.pc $(DESTDIR)$(PYTHONDIR)/easyfirst.py \
	    $(DESTDIR)$(PYTHONDIR)/__pycache__/easyfirst.*.pyc
	rm -rf $(DESTDIR)$(SHAREDIR) $(DESTDIR)$(DOCDIR) $(DESTDIR)$(PREFIX)/lib/easyfirst

# Man pages and completions, printed by the program from the tables of its options.
man: $(BUILD)/man/easyfirst.1 ## man pages of the program and its commands, in build/man
completions: $(BUILD)/completions/easyfirst.bash ## completions for bash, zsh and fish, in build/completions

$(BUILD)/man/easyfirst.1: $(PROGRAM)
	$(call say,MAN,$(@D))
	$(Q)rm -rf $(@D) && mkdir -p $(@D) && $(PROGRAM) --help=commands >$(@D)/commands
	$(Q)while read -r command kind; do \
	    $(PROGRAM) $$command $$kind --help=man >$(@D)/easyfirst-$$command$${kind:+-$$kind}.1 || exit 1; \
	done <$(@D)/commands
	$(Q)rm $(@D)/commands && $(PROGRAM) --help=man >$@

$(BUILD)/completions/easyfirst.bash: $(PROGRAM)
	$(call say,COMP,$(@D))
	$(Q)rm -rf $(@D) && mkdir -p $(@D) && $(PROGRAM) --help=zsh >$(@D)/_easyfirst && \
	    $(PROGRAM) --help=fish >$(@D)/easyfirst.fish && $(PROGRAM) --help=bash >$@

# Tests install them, several at a time.
run-tests: man completions

DATA_HOME := $(DESTDIR)$(PREFIX)/share
install: install-docs
install-docs: man completions
	install -d $(DATA_HOME)/man/man1 $(DATA_HOME)/doc/easyfirst
	install -m 644 $(BUILD)/man/*.1 $(DATA_HOME)/man/man1
	install -D -m 644 $(BUILD)/completions/easyfirst.bash $(DATA_HOME)/bash-completion/completions/easyfirst
	install -D -m 644 $(BUILD)/completions/_easyfirst $(DATA_HOME)/zsh/site-functions/_easyfirst
	install -D -m 644 $(BUILD)/completions/easyfirst.fish $(DATA_HOME)/fish/vendor_completions.d/easyfirst.fish
	install -m 644 README.md LICENSE apps/CHANGELOG.md $(DATA_HOME)/doc/easyfirst
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@BINDIR@|$(BINDIR)|' apps/package/easyfirst.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/easyfirst.service

uninstall: uninstall-docs
uninstall-docs:
	rm -f $(DATA_HOME)/man/man1/easyfirst.1 $(DATA_HOME)/man/man1/easyfirst-*.1
	rm -f $(DATA_HOME)/bash-completion/completions/easyfirst $(DATA_HOME)/zsh/site-functions/_easyfirst \
	    $(DATA_HOME)/fish/vendor_completions.d/easyfirst.fish
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/easyfirst.service
	rm -rf $(DATA_HOME)/doc/easyfirst

deb: build-deps ## Debian packages of the program, the model and the library, in build/deb
	@$(MAKE) --no-print-directory $(JOBS) all man completions
	@rm -rf $(BUILD)/deb
	@$(MAKE) --no-print-directory install DESTDIR=$(abspath $(BUILD)/deb/root) PREFIX=/usr >/dev/null
	@sh apps/package/deb.sh $(BUILD)/deb $(VERSION)

lint: build-deps ## clang-format, cppcheck, clang-tidy, shellcheck, ruff: those that are installed
	@sh tests/lint.sh

format: ## clang-format over all of our sources
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' '*.cu')

clean: ## remove what was built
	rm -rf build $(DIST) $(DIST).tar.gz

HELP_BUILD   := all deps emulated man completions stages clean help
HELP_TEST    := test asan fuzz lint format headers gpu-check
HELP_RUN     := demo
HELP_PACKAGE := install uninstall dist deb

help: ## this list
	@echo "usage: make [target] [CFLAGS=...] [BUILD=folder] [PREFIX=folder] [DESTDIR=folder] [DEPS=no] [V=1]"; \
	group() { \
	    echo; echo "$$1:"; shift; \
	    for target; do sed -n "s/^\($$target\):[^#]*## \(.*\)/  \1\t\2/p" $(firstword $(MAKEFILE_LIST)); done | \
	        expand -t 15; \
	}; \
	group build $(HELP_BUILD); group test $(HELP_TEST); group run $(HELP_RUN); group package $(HELP_PACKAGE)

-include $(shell find $(BUILD) -name '*.d' -type f 2>/dev/null)
