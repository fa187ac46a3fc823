-- Whether a node's storage really has more than this percentage free, as of the last sweep. What is not known does not
-- count against it.
create function has_margin(node nodes, margin_percent bigint) returns boolean language sql stable as $$
    select node.disk_used is null or node.disk_gib = 0
           or node.disk_used <= node.disk_gib * 1073741824.0 * (100 - margin_percent) / 100
$$;
