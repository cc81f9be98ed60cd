// PTX text to statements: what the assembler's grammar says, before anything is known about what an opcode does.
//
// Registers are numbered in the order in which they appear, whatever scope declared them; .loc lines stay with the
// statements that follow them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptxsim {

// What stops a kernel or a module; the text is the report.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Space : std::uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam, kConst };

constexpr std::uint32_t kNoLocation = ~0U;
// Of a .loc, with where what is there was inlined.
struct Location {
  std::uint32_t file = 0, line = 0, column = 0;
  std::uint32_t caller = kNoLocation;
};

struct Operand {
  enum class Kind { kRegister, kSpecial, kSymbol, kNumber, kAddress, kList, kPair, kSink };
  Kind kind = Kind::kSink;
  bool negated = false;         // !%p
  std::uint32_t register_ = 0;  // kRegister
  std::string name;             // kSpecial, kSymbol
  std::uint64_t bits = 0;       // kNumber
  std::int64_t offset = 0;      // kAddress: [parts[0] + offset]
  std::vector<Operand> parts;   // kAddress, kList {a, b}, kPair a|b
};

struct Statement {
  std::vector<std::string> opcode;  // "ld", "global", "v4", "f32"
  std::vector<Operand> operands;
  std::int64_t guard = -1;  // register
  bool guard_negated = false;
  std::uint32_t location = kNoLocation;  // in the module
};

struct Register {
  std::string name;
  unsigned bits;  // 1 for a predicate; else 16, 32 or 64
};

struct Variable {
  std::string name;
  Space space = Space::kGlobal;
  std::uint64_t align = 1, bytes = 0;
  std::vector<std::uint8_t> initial;
  bool is_dynamic = false;  // .extern .shared name[]
};

struct Kernel {
  std::string name;
  std::vector<Variable> parameters, variables;
  std::vector<Register> registers;
  std::vector<Statement> statements;
  std::vector<std::pair<std::string, std::uint32_t>> labels;  // of the statement that follows
  std::uint64_t most_threads = 1024;                          // .maxntid
};

struct Module {
  std::vector<Kernel> kernels;
  std::vector<Variable> variables;
  std::vector<std::string> files;  // by the number in .loc
  std::vector<Location> locations;
};

Module parse(std::string const& text);

}  // namespace ptxsim
