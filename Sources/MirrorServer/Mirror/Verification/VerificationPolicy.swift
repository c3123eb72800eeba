/// Whether and how the bytes of peers are checked against their digest.
public enum VerificationPolicy: Sendable, Hashable {
    /// Content up to a size is held until its digest is known to be right; larger content is hashed while it passes, and
    /// its end is withheld until then.
    case on
    /// Nothing is checked: for those who want raw speed and trust their nodes. The client checks in any case.
    case off
}
