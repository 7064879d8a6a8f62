-- Tell who listens that what readers see has changed; sent when the transaction commits.
-- Parameters: channel, payload (text: a JSON object). Grain: one row.
SELECT pg_notify(:channel, :payload)
