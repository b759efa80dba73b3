// Package discovery says who is alive: which instances serve an endpoint now.
//
// A [Registry] keeps records about instances in a [Store], and turns what the
// store lists back into instances. The store of one process, [Mem], is here;
// stores that several processes share have packages of their own below this
// one, so that a program links only what it imports.
package discovery
