-- Register a pipeline, or what its declaration says now.
-- How long a history is kept stays written down when it is declared no more: what there is of it is still removed in time.
-- Parameters: pipeline, model, alias, contract_text, contract_digest, logic_digest (text), history_keep (interval, or NULL). Grain: one row.
INSERT INTO prescore.pipelines (pipeline, model, alias, contract_text, contract_digest, logic_digest, history_keep)
VALUES (:pipeline, :model, :alias, :contract_text, :contract_digest, :logic_digest,
        CAST(:history_keep AS interval))
ON CONFLICT (pipeline) DO UPDATE
SET model = excluded.model, alias = excluded.alias, contract_text = excluded.contract_text,
    contract_digest = excluded.contract_digest, logic_digest = excluded.logic_digest,
    history_keep = coalesce(excluded.history_keep, pipelines.history_keep)
