-- Lists of operations: an account's, everybody's, and those that wait for a person.
drop index operations_account_id;
create index operations_of_account on operations (account_id, created_at, id) where account_id is not null;
create index operations_by_time on operations (created_at, id);
create index operations_stuck on operations (created_at, id) where state = 'stuck';
