CREATE TABLE access_refusal (
	minute BIGINT NOT NULL, 
	caller VARCHAR(200) NOT NULL, 
	route VARCHAR(300) NOT NULL, 
	status INTEGER NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	count BIGINT NOT NULL, 
	CONSTRAINT pk_access_refusal PRIMARY KEY (minute, caller, route, status, project)
);

CREATE TABLE action (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(200) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	cause VARCHAR(200) NOT NULL, 
	"key" VARCHAR(300) NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	revision VARCHAR(80), 
	requested_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	recorded_at BIGINT NOT NULL, 
	result TEXT NOT NULL, 
	CONSTRAINT pk_action PRIMARY KEY (id), 
	CONSTRAINT uq_action_key UNIQUE (project, "key")
);

CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE alert (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(200) NOT NULL, 
	metric VARCHAR(60) NOT NULL, 
	subject VARCHAR(200) NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	value FLOAT NOT NULL, 
	"limit" FLOAT NOT NULL, 
	since BIGINT NOT NULL, 
	opened_at BIGINT NOT NULL, 
	closed_at BIGINT, 
	measurement VARCHAR(400) NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_alert PRIMARY KEY (id)
);

CREATE TABLE api_token (
	id VARCHAR(60) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	roles TEXT NOT NULL, 
	endpoints TEXT, 
	rate FLOAT, 
	created_at BIGINT NOT NULL, 
	created_by VARCHAR(200) NOT NULL, 
	expires_at BIGINT, 
	used_at BIGINT, 
	revoked_at BIGINT, 
	revoked_by VARCHAR(200), 
	CONSTRAINT pk_api_token PRIMARY KEY (id), 
	CONSTRAINT uq_api_token_hash UNIQUE (hash)
);

CREATE TABLE approval (
	id VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	version VARCHAR(40) NOT NULL, 
	bundle VARCHAR(80) NOT NULL, 
	evaluation VARCHAR(40) NOT NULL, 
	evidence VARCHAR(80) NOT NULL, 
	contract VARCHAR(80) NOT NULL, 
	policy VARCHAR(20) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	proposed_by VARCHAR(200) NOT NULL, 
	approved_by VARCHAR(200), 
	reason TEXT NOT NULL, 
	expires_at BIGINT, 
	created_at BIGINT NOT NULL, 
	event_at BIGINT NOT NULL, 
	CONSTRAINT pk_approval PRIMARY KEY (id)
);

CREATE TABLE artifact (
	owner VARCHAR(60) NOT NULL, 
	path VARCHAR(1000) NOT NULL, 
	blob VARCHAR(80) NOT NULL, 
	size BIGINT NOT NULL, 
	CONSTRAINT pk_artifact PRIMARY KEY (owner, path)
);

CREATE TABLE artifact_finding (
	blob VARCHAR(80) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	refused TEXT NOT NULL, 
	found_at BIGINT NOT NULL, 
	CONSTRAINT pk_artifact_finding PRIMARY KEY (blob)
);

CREATE TABLE bundle (
	project VARCHAR(200) NOT NULL, 
	digest VARCHAR(80) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	step VARCHAR(200) NOT NULL, 
	run VARCHAR(60) NOT NULL, 
	content VARCHAR(80) NOT NULL, 
	refit_of VARCHAR(80), 
	fit_key VARCHAR(80) NOT NULL, 
	created_at BIGINT NOT NULL, 
	current_at BIGINT NOT NULL, 
	CONSTRAINT pk_bundle PRIMARY KEY (project, digest)
);

CREATE TABLE bundle_trial (
	bundle VARCHAR(80) NOT NULL, 
	task VARCHAR(20) NOT NULL, 
	facts TEXT NOT NULL, 
	tried_at BIGINT NOT NULL, 
	CONSTRAINT pk_bundle_trial PRIMARY KEY (bundle)
);

CREATE TABLE call_table (
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(100) NOT NULL, 
	delta_version BIGINT NOT NULL, 
	schema TEXT, 
	CONSTRAINT pk_call_table PRIMARY KEY (project, endpoint)
);

CREATE TABLE call_unit (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(100) NOT NULL, 
	day VARCHAR(10) NOT NULL, 
	rows_path VARCHAR(400) NOT NULL, 
	rows_digest VARCHAR(80) NOT NULL, 
	rows_size BIGINT NOT NULL, 
	frames_path VARCHAR(400) NOT NULL, 
	frames_digest VARCHAR(80) NOT NULL, 
	frames_size BIGINT NOT NULL, 
	predictions BIGINT NOT NULL, 
	first_call VARCHAR(40) NOT NULL, 
	last_call VARCHAR(40) NOT NULL, 
	first_at BIGINT NOT NULL, 
	last_at BIGINT NOT NULL, 
	segments TEXT NOT NULL, 
	listed TEXT NOT NULL, 
	lost VARCHAR(40) NOT NULL, 
	added_at BIGINT NOT NULL, 
	retired_at BIGINT, 
	CONSTRAINT pk_call_unit PRIMARY KEY (id)
);

CREATE TABLE contract_revision (
	project VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	revision VARCHAR(80) NOT NULL, 
	objective TEXT NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	contract TEXT NOT NULL, 
	text TEXT NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	event_at BIGINT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	CONSTRAINT pk_contract_revision PRIMARY KEY (project, number)
);

CREATE TABLE dataset (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	digest VARCHAR(250) NOT NULL, 
	source_type VARCHAR(100) NOT NULL, 
	source TEXT NOT NULL, 
	schema TEXT, 
	profile TEXT, 
	CONSTRAINT pk_dataset PRIMARY KEY (id)
);

CREATE TABLE erasure (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(100), 
	selector TEXT, 
	why TEXT NOT NULL, 
	asked_by VARCHAR(200) NOT NULL, 
	asked_at BIGINT NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	done_at BIGINT, 
	predictions BIGINT NOT NULL, 
	CONSTRAINT pk_erasure PRIMARY KEY (id)
);

CREATE TABLE evaluation (
	id VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	problem VARCHAR(200) NOT NULL, 
	bundle VARCHAR(80) NOT NULL, 
	opponent VARCHAR(80), 
	relation VARCHAR(20) NOT NULL, 
	table_version VARCHAR(60) NOT NULL, 
	contract VARCHAR(80) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	verdict TEXT NOT NULL, 
	metrics TEXT NOT NULL, 
	split TEXT NOT NULL, 
	report_json VARCHAR(80) NOT NULL, 
	report_html VARCHAR(80) NOT NULL, 
	cause VARCHAR(200) NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	created_at BIGINT NOT NULL, 
	event_at BIGINT NOT NULL, 
	CONSTRAINT pk_evaluation PRIMARY KEY (id), 
	CONSTRAINT uq_evaluation_project_key UNIQUE (project, "key")
);

CREATE TABLE execution (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	pipe VARCHAR(60) NOT NULL, 
	step VARCHAR(200) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	cause VARCHAR(200) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	ingredients TEXT NOT NULL, 
	reasons TEXT NOT NULL, 
	parameters TEXT NOT NULL, 
	event_at BIGINT NOT NULL, 
	started BIGINT NOT NULL, 
	ended BIGINT, 
	ref VARCHAR(120), 
	digest VARCHAR(80), 
	error TEXT, attempt INTEGER DEFAULT '1' NOT NULL, partition VARCHAR(200), log VARCHAR(80), 
	CONSTRAINT pk_execution PRIMARY KEY (id)
);

CREATE TABLE experiment (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	created BIGINT NOT NULL, 
	updated BIGINT NOT NULL, 
	CONSTRAINT pk_experiment PRIMARY KEY (id)
);

CREATE TABLE experiment_tag (
	experiment VARCHAR(60) NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_experiment_tag PRIMARY KEY (experiment, name), 
	CONSTRAINT fk_experiment_tag_experiment FOREIGN KEY(experiment) REFERENCES experiment (id)
)
 WITHOUT ROWID

;

CREATE TABLE firing (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	schedule VARCHAR(200) NOT NULL, 
	"key" VARCHAR(300) NOT NULL, 
	cause VARCHAR(400) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	due BIGINT NOT NULL, 
	fired BIGINT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	ended BIGINT, 
	taken_up INTEGER NOT NULL, 
	pipe VARCHAR(60), 
	result TEXT NOT NULL, 
	CONSTRAINT pk_firing PRIMARY KEY (id), 
	CONSTRAINT uq_firing_key UNIQUE (project, schedule, "key")
);

CREATE TABLE journal_entry (
	project VARCHAR(200) NOT NULL, 
	number BIGINT NOT NULL, 
	kind VARCHAR(100) NOT NULL, 
	subject VARCHAR(400) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	event_at BIGINT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	body TEXT NOT NULL, 
	previous VARCHAR(80) NOT NULL, 
	digest VARCHAR(80) NOT NULL, 
	CONSTRAINT pk_journal_entry PRIMARY KEY (project, number)
);

CREATE TABLE journal_head (
	project VARCHAR(200) NOT NULL, 
	number BIGINT NOT NULL, 
	digest VARCHAR(80) NOT NULL, 
	CONSTRAINT pk_journal_head PRIMARY KEY (project)
);

CREATE TABLE lease (
	name VARCHAR(300) NOT NULL, 
	holder VARCHAR(60), 
	fence BIGINT NOT NULL, 
	host VARCHAR(300) NOT NULL, 
	pid BIGINT NOT NULL, 
	born VARCHAR(60) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	taken BIGINT NOT NULL, 
	heartbeat BIGINT NOT NULL, 
	CONSTRAINT pk_lease PRIMARY KEY (name)
);

CREATE TABLE lineage_edge (
	source VARCHAR(120) NOT NULL, 
	target VARCHAR(120) NOT NULL, 
	relation VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	CONSTRAINT pk_lineage_edge PRIMARY KEY (source, target, relation)
);

CREATE TABLE logged_model (
	id VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	experiment VARCHAR(60) NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	model_type VARCHAR(500) NOT NULL, 
	run VARCHAR(60) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason TEXT NOT NULL, 
	bundle VARCHAR(80), 
	created_by VARCHAR(200) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	deleted_at BIGINT, 
	CONSTRAINT pk_logged_model PRIMARY KEY (id)
);

CREATE TABLE logged_model_metric (
	model VARCHAR(40) NOT NULL, 
	run VARCHAR(60) NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	step BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	value FLOAT NOT NULL, 
	nan SMALLINT NOT NULL, 
	dataset_name VARCHAR(500) NOT NULL, 
	dataset_digest VARCHAR(80) NOT NULL, 
	CONSTRAINT pk_logged_model_metric PRIMARY KEY (model, name, dataset_name, dataset_digest, run, step, at)
);

CREATE TABLE logged_model_parameter (
	model VARCHAR(40) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_logged_model_parameter PRIMARY KEY (model, "key")
);

CREATE TABLE logged_model_tag (
	model VARCHAR(40) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_logged_model_tag PRIMARY KEY (model, "key")
);

CREATE TABLE measurement (
	id VARCHAR(400) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(200) NOT NULL, 
	monitor VARCHAR(60) NOT NULL, 
	subject VARCHAR(200) NOT NULL, 
	window_start BIGINT NOT NULL, 
	window_end BIGINT NOT NULL, 
	value FLOAT, 
	"limit" FLOAT, 
	state VARCHAR(20) NOT NULL, 
	n BIGINT NOT NULL, 
	outcomes_share FLOAT, 
	reference VARCHAR(120), 
	cursor VARCHAR(60), 
	detail TEXT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	CONSTRAINT pk_measurement PRIMARY KEY (id), 
	CONSTRAINT uq_measurement_look UNIQUE (endpoint, monitor, subject, window_end)
);

CREATE TABLE model_alias (
	project VARCHAR(200) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	alias VARCHAR(100) NOT NULL, 
	number INTEGER NOT NULL, 
	CONSTRAINT pk_model_alias PRIMARY KEY (project, model, alias)
);

CREATE TABLE model_bar (
	project VARCHAR(200) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	content VARCHAR(80) NOT NULL, 
	until BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	cause VARCHAR(200) NOT NULL, 
	CONSTRAINT pk_model_bar PRIMARY KEY (project, model, content)
);

CREATE TABLE "model_version" (
	id VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	bundle VARCHAR(80) NOT NULL, 
	content VARCHAR(80) NOT NULL, 
	run VARCHAR(60) NOT NULL, 
	recipe VARCHAR(80) NOT NULL, 
	origin VARCHAR(20) NOT NULL, 
	refit_of VARCHAR(40), 
	evaluation VARCHAR(40), 
	state VARCHAR(20) NOT NULL, 
	stage VARCHAR(200) NOT NULL, 
	registered_by VARCHAR(200) NOT NULL, 
	created_at BIGINT NOT NULL, 
	event_at BIGINT NOT NULL, 
	description TEXT DEFAULT '' NOT NULL, 
	source TEXT DEFAULT '' NOT NULL, 
	run_link TEXT DEFAULT '' NOT NULL, 
	logged_model VARCHAR(40), 
	updated_at BIGINT, 
	deleted_at BIGINT, 
	CONSTRAINT pk_model_version PRIMARY KEY (id)
);

CREATE TABLE model_version_tag (
	version VARCHAR(40) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_model_version_tag PRIMARY KEY (version, "key")
);

CREATE TABLE note (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	subject VARCHAR(400) NOT NULL, 
	author VARCHAR(200) NOT NULL, 
	text TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	edited BIGINT, 
	CONSTRAINT pk_note PRIMARY KEY (id)
);

CREATE TABLE outcome (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	prediction VARCHAR(60) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	value FLOAT, 
	label VARCHAR(200), 
	state VARCHAR(10) NOT NULL, 
	observed_at BIGINT NOT NULL, 
	event_at BIGINT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	reporter VARCHAR(200) NOT NULL, 
	corrects VARCHAR(60), 
	corrected_by VARCHAR(60), 
	CONSTRAINT pk_outcome PRIMARY KEY (id)
);

CREATE TABLE pipeline_run (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	cause VARCHAR(200) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	contract VARCHAR(80) NOT NULL, 
	targets TEXT, 
	steps TEXT NOT NULL, 
	event_at BIGINT NOT NULL, 
	started BIGINT NOT NULL, 
	ended BIGINT, resumes VARCHAR(60), 
	CONSTRAINT pk_pipeline_run PRIMARY KEY (id)
);

CREATE TABLE policy_revision (
	endpoint VARCHAR(100) NOT NULL, 
	number INTEGER NOT NULL, 
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	policy TEXT NOT NULL, 
	bundles TEXT NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	cause TEXT NOT NULL, 
	event_at BIGINT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	CONSTRAINT pk_policy_revision PRIMARY KEY (endpoint, number), 
	CONSTRAINT uq_policy_revision_id UNIQUE (id)
);

CREATE TABLE record_hold (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(100) NOT NULL, 
	since BIGINT, 
	until BIGINT, 
	why TEXT NOT NULL, 
	placed_by VARCHAR(200) NOT NULL, 
	placed_at BIGINT NOT NULL, 
	released_by VARCHAR(200), 
	released_at BIGINT, 
	CONSTRAINT pk_record_hold PRIMARY KEY (id)
);

CREATE TABLE registered_model (
	project VARCHAR(200) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	description TEXT NOT NULL, 
	created_by VARCHAR(200) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	last_number INTEGER NOT NULL, 
	CONSTRAINT pk_registered_model PRIMARY KEY (project, name)
);

CREATE TABLE registered_model_tag (
	project VARCHAR(200) NOT NULL, 
	model VARCHAR(200) NOT NULL, 
	"key" VARCHAR(250) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_registered_model_tag PRIMARY KEY (project, model, "key")
);

CREATE TABLE rollout (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(200) NOT NULL, 
	candidate INTEGER NOT NULL, 
	bundle VARCHAR(80) NOT NULL, 
	incumbent INTEGER NOT NULL, 
	stage VARCHAR(20) NOT NULL, 
	step INTEGER NOT NULL, 
	since BIGINT NOT NULL, 
	terms TEXT NOT NULL, 
	standing TEXT NOT NULL, 
	contract VARCHAR(80), 
	cause TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	reason TEXT NOT NULL, 
	superseded_by VARCHAR(60), 
	barred_until BIGINT, 
	applied BOOLEAN NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	CONSTRAINT pk_rollout PRIMARY KEY (id)
);

CREATE TABLE rollout_look (
	rollout VARCHAR(60) NOT NULL, 
	number INTEGER NOT NULL, 
	at BIGINT NOT NULL, 
	move VARCHAR(20) NOT NULL, 
	rule VARCHAR(40) NOT NULL, 
	reason TEXT NOT NULL, 
	stage VARCHAR(20) NOT NULL, 
	step INTEGER NOT NULL, 
	facts TEXT NOT NULL, 
	CONSTRAINT pk_rollout_look PRIMARY KEY (rollout, number)
);

CREATE TABLE run (
	"key" INTEGER NOT NULL, 
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	experiment_id VARCHAR(60) NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	step VARCHAR(200), 
	execution VARCHAR(60), 
	state VARCHAR(20) NOT NULL, 
	lifecycle VARCHAR(10) NOT NULL, 
	deleted_at BIGINT, 
	deleted_with VARCHAR(60), 
	error TEXT, 
	inputs TEXT NOT NULL, 
	code TEXT, 
	environment VARCHAR(80), 
	conditions VARCHAR(80), 
	cause VARCHAR(200) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	user_name VARCHAR(250), 
	process INTEGER NOT NULL, 
	event_at BIGINT NOT NULL, 
	started BIGINT NOT NULL, 
	ended BIGINT, 
	CONSTRAINT pk_run PRIMARY KEY ("key"), 
	CONSTRAINT fk_run_experiment_id_experiment FOREIGN KEY(experiment_id) REFERENCES experiment (id), 
	CONSTRAINT uq_run_id UNIQUE (id)
);

CREATE TABLE run_input (
	run INTEGER NOT NULL, 
	dataset VARCHAR(60) NOT NULL, 
	context VARCHAR(250), 
	tags TEXT NOT NULL, 
	CONSTRAINT pk_run_input PRIMARY KEY (run, dataset), 
	CONSTRAINT fk_run_input_run FOREIGN KEY(run) REFERENCES run ("key"), 
	CONSTRAINT fk_run_input_dataset FOREIGN KEY(dataset) REFERENCES dataset (id)
)
 WITHOUT ROWID

;

CREATE TABLE run_latest (
	run INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	step BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	value FLOAT NOT NULL, 
	nan SMALLINT NOT NULL, 
	CONSTRAINT pk_run_latest PRIMARY KEY (run, name)
)
 WITHOUT ROWID

;

CREATE TABLE run_metric (
	run INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	step BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	value FLOAT NOT NULL, 
	nan SMALLINT NOT NULL, 
	CONSTRAINT pk_run_metric PRIMARY KEY (run, name, step, at, value, nan)
)
 WITHOUT ROWID

;

CREATE TABLE run_model (
	run VARCHAR(60) NOT NULL, 
	role VARCHAR(10) NOT NULL, 
	model VARCHAR(40) NOT NULL, 
	step BIGINT NOT NULL, 
	CONSTRAINT pk_run_model PRIMARY KEY (run, role, model)
);

CREATE TABLE run_parameter (
	run INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	value VARCHAR(250) NOT NULL, 
	rest TEXT, 
	kind VARCHAR(10) NOT NULL, 
	CONSTRAINT pk_run_parameter PRIMARY KEY (run, name), 
	CONSTRAINT fk_run_parameter_run FOREIGN KEY(run) REFERENCES run ("key")
)
 WITHOUT ROWID

;

CREATE TABLE run_spool (
	run VARCHAR(60) NOT NULL, 
	writer VARCHAR(40) NOT NULL, 
	applied BIGINT NOT NULL, 
	heard BIGINT NOT NULL, 
	place VARCHAR(1000) NOT NULL, 
	CONSTRAINT pk_run_spool PRIMARY KEY (run, writer)
);

CREATE TABLE run_tag (
	run INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	value VARCHAR(250) NOT NULL, 
	rest TEXT, 
	CONSTRAINT pk_run_tag PRIMARY KEY (run, name), 
	CONSTRAINT fk_run_tag_run FOREIGN KEY(run) REFERENCES run ("key")
)
 WITHOUT ROWID

;

CREATE TABLE segment (
	id VARCHAR(160) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	endpoint VARCHAR(100) NOT NULL, 
	boot BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	first_call VARCHAR(40) NOT NULL, 
	last_call VARCHAR(40) NOT NULL, 
	first_at BIGINT NOT NULL, 
	last_at BIGINT NOT NULL, 
	calls BIGINT NOT NULL, 
	predictions BIGINT NOT NULL, 
	frames BIGINT NOT NULL, 
	root VARCHAR(80) NOT NULL, 
	chain VARCHAR(80) NOT NULL, 
	sealed_at BIGINT NOT NULL, gaps TEXT, 
	CONSTRAINT pk_segment PRIMARY KEY (id)
);

CREATE TABLE serving_account (
	name VARCHAR(100) NOT NULL, 
	taken_at BIGINT NOT NULL, 
	CONSTRAINT pk_serving_account PRIMARY KEY (name)
);

CREATE TABLE serving_usage (
	hour BIGINT NOT NULL, 
	what VARCHAR(100) NOT NULL, 
	endpoint VARCHAR(100) NOT NULL, 
	version INTEGER NOT NULL, 
	bundle VARCHAR(80) NOT NULL, 
	calls BIGINT NOT NULL, 
	rows BIGINT NOT NULL, 
	cpu_seconds FLOAT NOT NULL, 
	byte_seconds FLOAT NOT NULL, 
	busy_seconds FLOAT NOT NULL, 
	starts BIGINT NOT NULL, 
	CONSTRAINT pk_serving_usage PRIMARY KEY (hour, what, endpoint, version, bundle)
);

CREATE TABLE store_format (
	number INTEGER NOT NULL
);

CREATE TABLE study (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	step VARCHAR(200) NOT NULL, 
	problem VARCHAR(200) NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	terms TEXT NOT NULL, 
	trials INTEGER NOT NULL, 
	version VARCHAR(60) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	started BIGINT NOT NULL, 
	ended BIGINT, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_project_key UNIQUE (project, "key")
);

CREATE TABLE table_version (
	id VARCHAR(60) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	"table" VARCHAR(200) NOT NULL, 
	zone VARCHAR(20) NOT NULL, 
	number INTEGER NOT NULL, 
	delta_version INTEGER NOT NULL, 
	content VARCHAR(80) NOT NULL, 
	state VARCHAR(80) NOT NULL, 
	schema TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	rows BIGINT NOT NULL, 
	mode VARCHAR(20) NOT NULL, 
	partition VARCHAR(200), 
	profile VARCHAR(80) NOT NULL, 
	checks TEXT NOT NULL, 
	execution VARCHAR(60), 
	cause VARCHAR(400) NOT NULL, 
	"foreign" BOOLEAN NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	event_at BIGINT NOT NULL, 
	CONSTRAINT pk_table_version PRIMARY KEY (id), 
	CONSTRAINT uq_table_version_project_table_number UNIQUE (project, "table", number)
);

CREATE TABLE waiver (
	id VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	evaluation VARCHAR(40) NOT NULL, 
	gate VARCHAR(300) NOT NULL, 
	reason TEXT NOT NULL, 
	given_by VARCHAR(200) NOT NULL, 
	expires_at BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	event_at BIGINT NOT NULL, 
	CONSTRAINT pk_waiver PRIMARY KEY (id)
);

CREATE TABLE webhook (
	id VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	description TEXT NOT NULL, 
	url TEXT NOT NULL, 
	events TEXT NOT NULL, 
	secret TEXT, 
	status VARCHAR(20) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_webhook PRIMARY KEY (id)
);

CREATE TABLE webhook_delivery (
	id VARCHAR(40) NOT NULL, 
	webhook VARCHAR(40) NOT NULL, 
	project VARCHAR(200) NOT NULL, 
	event VARCHAR(60) NOT NULL, 
	payload TEXT NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_at BIGINT NOT NULL, 
	status INTEGER, 
	error TEXT, 
	created_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	CONSTRAINT pk_webhook_delivery PRIMARY KEY (id)
);

CREATE INDEX ix_api_token_name ON api_token (name);

CREATE INDEX ix_approval_version ON approval (version);

CREATE INDEX ix_artifact_blob ON artifact (blob);

CREATE INDEX ix_bundle_fit_key ON bundle (fit_key);

CREATE INDEX ix_bundle_run ON bundle (run);

CREATE INDEX ix_call_unit_at ON call_unit (endpoint, first_at);

CREATE INDEX ix_call_unit_call ON call_unit (first_call, last_call);

CREATE INDEX ix_evaluation_bundle ON evaluation (bundle);

CREATE INDEX ix_execution_key ON execution (project, "key");

CREATE INDEX ix_execution_pipe ON execution (pipe);

CREATE INDEX ix_execution_step ON execution (project, step, id);

CREATE INDEX ix_journal_entry_subject ON journal_entry (subject);

CREATE INDEX ix_lineage_edge_target ON lineage_edge (target);

CREATE INDEX ix_logged_model_experiment_created_at ON logged_model (experiment, created_at);

CREATE INDEX ix_logged_model_run ON logged_model (run);

CREATE INDEX ix_model_version_bundle ON model_version (bundle);

CREATE INDEX ix_model_version_content ON model_version (content);

CREATE INDEX ix_model_version_project_model_bundle ON model_version (project, model, bundle);

CREATE INDEX ix_note_subject ON note (subject);

CREATE INDEX ix_outcome_parked ON outcome (project, event_at) WHERE state = 'parked';

CREATE INDEX ix_pipeline_run_project ON pipeline_run (project);

CREATE INDEX ix_policy_revision_project ON policy_revision (project);

CREATE INDEX ix_rollout_endpoint ON rollout (endpoint);

CREATE INDEX ix_run_execution ON run (execution);

CREATE INDEX ix_run_experiment ON run (experiment_id, lifecycle, started, id);

CREATE INDEX ix_run_input_dataset ON run_input (dataset);

CREATE INDEX ix_run_model_model ON run_model (model);

CREATE INDEX ix_run_parameter_value ON run_parameter (name, value);

CREATE INDEX ix_run_project ON run (project, lifecycle, started, id);

CREATE INDEX ix_run_tag_value ON run_tag (name, value);

CREATE INDEX ix_segment_endpoint ON segment (endpoint);

CREATE INDEX ix_segment_project ON segment (project);

CREATE INDEX ix_waiver_evaluation ON waiver (evaluation);

CREATE INDEX ix_webhook_delivery_waiting ON webhook_delivery (next_at) WHERE state = 'waiting';

CREATE INDEX ix_webhook_delivery_webhook ON webhook_delivery (webhook);

CREATE INDEX ix_webhook_project ON webhook (project);

CREATE UNIQUE INDEX ux_alert_open ON alert (endpoint, metric, subject) WHERE state = 'open';

CREATE UNIQUE INDEX ux_experiment_active ON experiment (project, name) WHERE state = 'active';

CREATE UNIQUE INDEX ux_model_version_current ON model_version (project, model, number) WHERE deleted_at IS NULL;

CREATE UNIQUE INDEX ux_outcome_current ON outcome (prediction, kind) WHERE corrected_by IS NULL;

CREATE UNIQUE INDEX ux_rollout_running ON rollout (endpoint) WHERE ended_at IS NULL;

INSERT INTO alembic_version (version_num) VALUES ('0006');

