-- Register a pipeline, or what its declaration says now.
-- Parameters: pipeline, model, alias, contract_text, contract_digest, logic_digest (text), history_keep (interval, or NULL). Grain: one row.
INSERT INTO prescore.pipelines (pipeline, model, alias, contract_text, contract_digest, logic_digest, history_keep)
VALUES (:pipeline, :model, :alias, :contract_text, :contract_digest, :logic_digest,
        CAST(:history_keep AS interval))
ON CONFLICT (pipeline) DO UPDATE
SET model = excluded.model, alias = excluded.alias, contract_text = excluded.contract_text,
    contract_digest = excluded.contract_digest, logic_digest = excluded.logic_digest, history_keep = excluded.history_keep
