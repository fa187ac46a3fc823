-- What was over is not taken away: forgetting expired and revoked tokens is no revocation, and nobody is told of it.
drop trigger tokens_changed on tokens;
create trigger tokens_changed after delete or update of revoked_at, scopes, expires_at on tokens
    for each row when (old.kind <> 'refresh' and old.revoked_at is null and (old.expires_at is null or old.expires_at > now()))
    execute function notify_auth_changed('token');
drop trigger sessions_changed on sessions;
create trigger sessions_changed after delete or update of revoked_at, expires_at on sessions
    for each row when (old.revoked_at is null and old.expires_at > now())
    execute function notify_auth_changed('session');
