//! Who makes a request, and for whom.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Access, ClientAddress, Scopes};
use crate::error::{Code, Error, Result};
use crate::ids::{AccountId, UserId};
use crate::stored_enum;
use crate::subjects::Subject;

/// What a user is for the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StaffRole {
    /// Runs the installation.
    Admin,
    /// Looks at everything and changes nothing.
    Support,
    /// Looks at users, accounts and what they owe.
    Billing,
    /// A role known to a newer version but not to this one.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored_enum!(StaffRole, Self::Unknown);

impl StaffRole {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Support => "support",
            Self::Billing => "billing",
            Self::Unknown => "unknown",
        }
    }
}

/// What a user is in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Answers for the account: everything. Each account has one.
    #[value(skip)]
    Owner,
    /// Everything but deleting the account.
    Admin,
    /// Orders, changes and deletes what the account owns; does not manage its members.
    Member,
    /// Sees the account and its members, and what it owes; not what it owns.
    Billing,
    /// Sees what the account owns and changes nothing.
    Viewer,
    /// A role known to a newer version but not to this one.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored_enum!(MemberRole, Self::Unknown);

impl MemberRole {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Billing => "billing",
            Self::Viewer => "viewer",
            Self::Unknown => "unknown",
        }
    }

    /// The most that this role may do with what the account owns.
    pub fn reach(self) -> Option<Access> {
        match self {
            Self::Owner | Self::Admin | Self::Member => Some(Access::Write),
            Self::Viewer => Some(Access::Read),
            Self::Billing | Self::Unknown => None,
        }
    }

    /// Whether this role manages the account itself and its members.
    pub fn manages(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }
}

/// Who owns something: an account, which may be a reseller's customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// The reseller whose customer it is.
    pub reseller: Option<AccountId>,
}

/// The authenticated caller of a request, who acts for one account.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user who signed in.
    pub user: UserId,
    /// What the user is for the provider; none for those who are no staff.
    pub staff: Option<StaffRole>,
    /// The account that the request is made for.
    pub account: AccountId,
    /// The user's role in it.
    pub role: MemberRole,
    /// Whether the account has customers of its own.
    pub is_reseller: bool,
    /// The reseller whose customer the account is.
    pub reseller: Option<AccountId>,
    /// Whether the user has no role of their own in the account, and acts for it as staff or a reseller's member.
    pub from_above: bool,
    /// The account of an API token, from which it reaches the one it acts for; none for logins.
    pub token_account: Option<AccountId>,
    /// Why the account is suspended, if it is.
    pub suspended: Option<String>,
    /// The token shown.
    pub token: Uuid,
    /// The session that the token belongs to; none for an API token.
    pub session: Option<Uuid>,
    /// The member of staff who opened the session by a login link.
    pub opened_by: Option<UserId>,
    /// What the token may do.
    pub scopes: Scopes,
}

impl Caller {
    /// Whether this is a provider: staff who run the installation.
    pub fn is_provider(&self) -> bool {
        self.staff == Some(StaffRole::Admin)
    }

    /// Whether this is staff who may look at everything.
    pub fn sees_everything(&self) -> bool {
        matches!(self.staff, Some(StaffRole::Admin | StaffRole::Support))
    }

    /// The account whose things lists show; none: everybody's.
    pub fn only_account(&self) -> Option<AccountId> {
        (!self.sees_everything()).then_some(self.account)
    }

    /// Whether something is its account's own, or a customer's of its account.
    pub fn owns(&self, owner: Owner) -> bool {
        owner.account == self.account || (self.is_reseller && owner.reseller == Some(self.account))
    }

    /// The most that this user may do with what this owner has, whatever the token's scopes; `None`: it is hidden from
    /// them.
    pub fn reach(&self, owner: Owner) -> Option<Access> {
        let own = self.owns(owner).then(|| self.role.reach()).flatten();
        let as_staff = match self.staff {
            Some(StaffRole::Admin) => Some(Access::Write),
            Some(StaffRole::Support) => Some(Access::Read),
            _ => None,
        };
        own.max(as_staff)
    }

    /// Checks that the caller has this access to something that has this owner: 404 if it is hidden from them, 403 if
    /// they may see it but not do this. `what` names it in errors; `subject` is what scopes call it, if they can name
    /// it.
    pub fn check(&self, what: &str, subject: Option<&Subject>, owner: Owner, level: Access) -> Result<()> {
        let in_scope = |level| match subject {
            Some(subject) => self.scopes.allow_on(level, subject),
            None => self.scopes.allow(level),
        };
        let reach = self.reach(owner).filter(|_| in_scope(Access::Read)).ok_or_else(|| Error::not_found(what))?;
        if !in_scope(level) {
            return Err(read_only(what));
        }
        if reach < level {
            return Err(role_forbids());
        }
        self.check_not_suspended(level)
    }

    /// The same for something that is the provider's.
    pub fn check_provider_owned(&self, what: &str, level: Access) -> Result<()> {
        if !self.sees_everything() || !self.scopes.allow(Access::Read) {
            return Err(Error::not_found(what));
        }
        if level == Access::Write && !self.is_provider() {
            return Err(role_forbids());
        }
        match self.scopes.allow(level) {
            true => Ok(()),
            false => Err(read_only(what)),
        }
    }

    /// Refuses callers whose role or token does not allow this access to everything that their account owns.
    pub fn check_account(&self, level: Access) -> Result<()> {
        if !self.scopes.allow(level) {
            return Err(scopes_forbid());
        }
        self.check_role(level)
    }

    /// Refuses callers whose role in their account does not allow this access to what it owns.
    pub fn check_role(&self, level: Access) -> Result<()> {
        match self.role.reach() {
            Some(reach) if reach >= level => self.check_not_suspended(level),
            // Staff can see everything from their own account as well.
            None if level == Access::Read && self.sees_everything() => Ok(()),
            _ => Err(role_forbids()),
        }
    }

    /// Refuses changes while the account is suspended. The provider's are not refused.
    fn check_not_suspended(&self, level: Access) -> Result<()> {
        match &self.suspended {
            Some(reason) if level == Access::Write && !self.is_provider() => Err(account_suspended(reason)),
            _ => Ok(()),
        }
    }

    /// What the audit log calls this caller: `provider` for staff, also when signed in as a user.
    pub fn audit_role(&self) -> &'static str {
        match self.staff.is_some() || self.opened_by.is_some() {
            true => "provider",
            false if self.is_reseller || self.from_above => "reseller",
            false => "customer",
        }
    }

    /// The login, for what would let a leaked token gain access; refuses API tokens, and logins opened by staff.
    pub fn check_login(&self) -> Result<Uuid> {
        match self.session {
            Some(_) if self.opened_by.is_some() => {
                Err(Error::new(Code::Forbidden, "A session opened by a login link may not do this."))
            }
            Some(session) => Ok(session),
            None => Err(Error::new(Code::Forbidden, "An API token may not do this; sign in with your password.")),
        }
    }
}

/// The response to changes while the account is suspended.
pub fn account_suspended(reason: &str) -> Error {
    Error::new(Code::Conflict, format!("This account is suspended: {reason}"))
}

fn read_only(what: &str) -> Error {
    Error::new(Code::Forbidden, format!("This token may read the {what}, but not change it."))
}

/// The response to callers whose scopes are too narrow.
pub fn scopes_forbid() -> Error {
    Error::new(Code::Forbidden, "This token's scopes do not allow this.")
}

/// The response to callers whose role in their account is too weak.
pub fn role_forbids() -> Error {
    Error::new(Code::Forbidden, "Your role in this account does not allow this.")
}

/// Knows tokens: the kernel asks it who makes a request.
#[async_trait]
pub trait Authenticator: Debug + Send + Sync {
    /// Whose token this is, shown from this address, acting for this account; without one for the token's own.
    async fn authenticate(&self, token: &str, account: Option<AccountId>, from: ClientAddress) -> Result<Caller>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(account: i64, role: MemberRole, staff: Option<StaffRole>) -> Caller {
        Caller {
            user: UserId(1),
            staff,
            account: AccountId(account),
            role,
            is_reseller: account == 1,
            reseller: None,
            from_above: false,
            token_account: None,
            suspended: None,
            token: Uuid::nil(),
            session: None,
            opened_by: None,
            scopes: Scopes::All,
        }
    }

    /// Account 2 is a customer of reseller 1, account 3 is nobody's.
    fn owner(account: i64) -> Owner {
        Owner { account: AccountId(account), reseller: (account == 2).then_some(AccountId(1)) }
    }

    #[test]
    fn what_a_role_reaches_ends_with_its_account_and_its_customers() {
        use MemberRole::{Admin, Billing, Member, Owner, Unknown, Viewer};
        for (role, reach) in [
            (Owner, Some(Access::Write)),
            (Admin, Some(Access::Write)),
            (Member, Some(Access::Write)),
            (Viewer, Some(Access::Read)),
            (Billing, None),
            (Unknown, None),
        ] {
            let of = |account, other| caller(account, role, None).reach(owner(other));
            assert_eq!((of(2, 2), of(1, 2), of(1, 1)), (reach, reach, reach), "{role:?}");
            assert_eq!((of(2, 1), of(3, 2), of(1, 3)), (None, None, None), "{role:?}");
        }
    }

    #[test]
    fn staff_reach_everybody_as_far_as_they_may() {
        let of = |staff| caller(3, MemberRole::Owner, Some(staff)).reach(owner(2));
        assert_eq!(of(StaffRole::Admin), Some(Access::Write));
        assert_eq!(of(StaffRole::Support), Some(Access::Read));
        assert_eq!((of(StaffRole::Billing), of(StaffRole::Unknown)), (None, None));
        let support = caller(3, MemberRole::Owner, Some(StaffRole::Support));
        assert_eq!(support.reach(owner(3)), Some(Access::Write), "their own things are their own");
    }

    #[test]
    fn a_suspended_account_looks_and_changes_nothing() {
        let suspended = Caller { suspended: Some("unpaid".into()), ..caller(2, MemberRole::Owner, None) };
        assert!(suspended.check("server", None, owner(2), Access::Read).is_ok());
        let refused = suspended.check("server", None, owner(2), Access::Write).unwrap_err();
        assert_eq!((refused.code, refused.message.contains("unpaid")), (Code::Conflict, true));
        assert!(Caller { staff: Some(StaffRole::Admin), ..suspended }.check_account(Access::Write).is_ok());
    }

    #[test]
    fn what_may_not_be_known_is_not_there() {
        let code = |caller: &Caller, level| caller.check("server", None, owner(2), level).unwrap_err().code;
        assert_eq!(code(&caller(3, MemberRole::Owner, None), Access::Read), Code::NotFound);
        assert_eq!(code(&caller(2, MemberRole::Billing, None), Access::Read), Code::NotFound);
        assert_eq!(code(&caller(2, MemberRole::Viewer, None), Access::Write), Code::Forbidden);
        let narrow = Caller { scopes: Scopes::Only(vec![]), ..caller(2, MemberRole::Owner, None) };
        assert_eq!(code(&narrow, Access::Read), Code::NotFound);
    }
}
