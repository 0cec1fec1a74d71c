# make lab · book · serve · slides · test · test-full · models · onnx · claims · bench · badges · clean. Each sets up what it needs.
# Windows and macOS without make: see the conda route in README.md.

PYTHON  ?= python3
PORT    ?= 8888
BROWSER ?= yes
EDITION ?= solution

ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
PY := $(BIN)/python

# Threads, in this one place. Two when a job has the machine to itself; one where two jobs share it
# (pytest-xdist, browser tests). Waiting threads sleep: with the other core busy that is twice as fast.
ALONE  := OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE
SHARED := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

# A relative mirror would mean another folder inside each notebook's kernel.
ifdef MEDIMGEN_MIRROR
  export MEDIMGEN_MIRROR := $(abspath $(MEDIMGEN_MIRROR))
endif

.PHONY: help lab book serve slides test test-full models onnx claims bench badges clean core dev pocket

help:
	@echo "make lab        open the course in JupyterLab        (PORT=8890 BROWSER=no)"
	@echo "make book       render the course site into _build/html  (EDITION=student, EDITION=instructor, REPOSITORY=https://… for Binder buttons)"
	@echo "make serve      show the rendered site                (PORT=8890)"
	@echo "make slides     slides of the core notebooks into _build/slides"
	@echo "make test       run every test, network blocked"
	@echo "make test-full  the same and the slow ones"
	@echo "make models     train the course's models again (hours; needs the full data tier)"
	@echo "make onnx       write the generator as ONNX files, for browsers and other programs"
	@echo "make claims     run recorded claims again             (ID=L0; ID=L2a DRAW=3 one draw)"
	@echo "make bench      time what has a time budget"
	@echo "make badges     measure each notebook, write time and memory on it"
	@echo "make clean      remove .venv and _build; fetched data stays"

core:
	@$(PYTHON) recipes/setup_env.py core

dev:
	@$(PYTHON) recipes/setup_env.py core dev

pocket: core
	@$(BIN)/medimgen fetch

lab: pocket
	$(ALONE) $(BIN)/jupyter lab --port=$(PORT) $(if $(filter no,$(BROWSER)),--no-browser) \
	  $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.extension_manager=readonly notebooks/00-meet-the-films.ipynb

book: dev pocket
	$(ALONE) $(PY) recipes/build_book.py --edition $(EDITION) $(if $(REPOSITORY),--repository $(REPOSITORY))

serve: dev
	@test -f _build/html/index.html || $(MAKE) book
	@$(PY) recipes/serve.py $(PORT)

slides: dev pocket
	$(ALONE) $(PY) recipes/make_slides.py

PYTEST := $(PY) recipes/offline.py $(PY) -m pytest

test: dev pocket
	@$(PY) recipes/browser_generator.py
	@$(BIN)/medimgen fetch axe-core
	$(SHARED) $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not serial"
	$(ALONE) $(PYTEST) -m "serial and not slow"

test-full: test
	@$(PYTHON) recipes/setup_env.py core dev research
	@$(BIN)/medimgen fetch --tier research
	$(ALONE) $(PYTEST) -m slow

models: dev
	$(ALONE) $(PY) recipes/train_generator.py --threads 2
	$(ALONE) $(PY) recipes/screen_memorisation.py --control
	$(ALONE) $(PY) recipes/screen_memorisation.py --install
	$(ALONE) $(PY) recipes/train_segmenter.py
	$(ALONE) $(PY) recipes/train_control.py

onnx: dev
	$(ALONE) $(PY) recipes/export_onnx.py

claims: dev pocket
	$(ALONE) $(PY) recipes/run_claims.py $(ID) $(if $(DRAW),--draw $(DRAW))

bench: dev pocket
	$(ALONE) $(PY) recipes/bench.py

badges: dev pocket
	@$(PYTHON) recipes/setup_env.py core dev research
	@$(BIN)/medimgen fetch --tier research
	$(ALONE) $(PY) recipes/offline.py $(PY) recipes/measure_notebooks.py --write

clean:
	rm -rf .venv _build
