-- Fingerprints of a host's own certificates, so that one and the same is not taken for two; empty until a look has told them.
alter table hosts add column identity text[] not null default '{}';
