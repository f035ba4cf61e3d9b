//! The tree of a template.
//!
//! Chains (`a + b + c`, `x.y.z|f|g`) are lists, not nested nodes: how deep a tree is depends on the brackets of its
//! source alone, which the parser bounds, so that walking and dropping it need little stack.

use std::sync::Arc;

/// A name or text of the source, shared by all renderings.
pub(super) type Str = Arc<str>;

/// A literal.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Str),
}

/// An operator of arithmetic, all associating to the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
    Concat,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

/// A sign or a negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Not,
    Minus,
    Plus,
}

/// What is computed.
#[derive(Debug)]
pub(super) enum Expr {
    Literal(Literal),
    Name(Str),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Unary(Unary, Box<Expr>),
    Arith(Box<Expr>, Vec<(Arith, Expr)>),
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Value, condition, value otherwise.
    If(Box<(Expr, Expr, Option<Expr>)>),
    /// A value and what is applied to it, in order.
    Postfix(Box<Expr>, Vec<Postfix>),
}

/// What is applied to a value.
#[derive(Debug)]
pub(super) enum Postfix {
    Attr(Str),
    Item(Expr),
    /// Start, stop, step.
    Slice(Box<[Option<Expr>; 3]>),
    Call(Args),
    Method(Str, Args),
    Filter(Str, Args),
    Test {
        name: Str,
        negated: bool,
        args: Args,
    },
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Str, Expr)>,
}

/// What a value is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Str),
    /// An attribute of a namespace.
    Attr(Str, Str),
    Tuple(Vec<Target>),
}

/// A macro: its parameters with their defaults, and its body.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Str,
    pub(super) params: Vec<(Str, Option<Expr>)>,
    pub(super) body: Vec<Stmt>,
}

/// A loop.
#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expr,
    /// Items that it does not hold for are passed over, and not counted.
    pub(super) filter: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Stmt>,
    /// For no item at all.
    pub(super) otherwise: Vec<Stmt>,
}

/// What is done, and in which line of the source.
#[derive(Debug)]
pub(super) struct Stmt {
    pub(super) line: u32,
    pub(super) action: Action,
}

/// What is done.
#[derive(Debug)]
pub(super) enum Action {
    Text(Str),
    Output(Expr),
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    For(Arc<For>),
    Set(Target, Expr),
    /// The text of a body, filtered.
    SetBlock(Target, Vec<Postfix>, Vec<Stmt>),
    Filter(Vec<Postfix>, Vec<Stmt>),
    Macro(Arc<Macro>),
    /// A call that may call the body back as `caller`.
    Call(Expr, Arc<Macro>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    /// A body that only marks something for others.
    Block(Vec<Stmt>),
    Break,
    Continue,
}
