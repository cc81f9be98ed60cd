// A kernel in the form that the machine runs: statements decoded once, operands as rows of the register file.
//
// A row holds one value for each of the 32 lanes of a warp: 32 words of 4 bytes for registers of up to 32 bits, of 8
// bytes for those of 64. Constants and special registers are rows too, so that every operand is read alike. Predicates
// are masks with a bit a lane, in a file of their own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "ptx.h"

namespace ptxsim {

using Mask = std::uint32_t;
constexpr unsigned kLanes = 32;
constexpr Mask kAllLanes = ~Mask{0};

struct Warp;
struct Instr;
using Execute = void (*)(Warp&, Instr const&, Mask);

// What the scheduler has to know of an instruction.
enum class Kind : std::uint8_t {
  kPlain,
  kBranch,
  kExit,
  kBarrier,  // waits for the block
  kMeeting,  // waits for the lanes that its mask names
  kYield,    // nanosleep
};

enum class Type : std::uint8_t {
  kB8,
  kB16,
  kB32,
  kB64,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kF32,
  kF64,
  kPred,
  kF16x2
};
unsigned bytes_of(Type type);
bool is_signed(Type type);
bool is_type(std::string const& name);
Type type_of(std::string const& name);  // Fault if there is no such type

// As the memory model has it: who is sure to see an access in one order, and what else the access orders.
enum class Strength : std::uint8_t { kPlain, kBlock, kDevice };
enum class Semantics : std::uint8_t { kRelaxed, kAcquire, kRelease, kAcquireRelease, kSequential };
constexpr bool acquires(Semantics s) { return s != Semantics::kRelaxed && s != Semantics::kRelease; }
constexpr bool releases(Semantics s) { return s != Semantics::kRelaxed && s != Semantics::kAcquire; }

enum class Moves : std::uint8_t { kWhole, kPack, kUnpack };  // mov with no list, of one, to one
enum class Compare : std::uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kNever, kAlways };
enum class Rounding : std::uint8_t { kNone, kNearest, kZero, kDown, kUp };

// Rows are given in words from the warp's first, predicates by number.
struct Instr {
  Execute execute = nullptr;
  Kind kind = Kind::kPlain;
  std::uint8_t width = 0;  // bytes of one element in memory, or of a packed operand
  std::uint8_t count = 1;  // elements of a vector
  bool dst_wide = false;   // the destination is a row of 8-byte words
  bool src_wide = false;   // the operand that matters is
  bool address_wide = true;
  bool sign_extends = false;
  bool saturates = false;
  bool flushes = false;  // .ftz
  bool unordered = false;
  bool guard_negated = false;
  std::uint8_t negated = 0;  // bit i: predicate operand src[i] is !%p
  Space space = Space::kGeneric;
  Strength strength = Strength::kPlain;
  Semantics semantics = Semantics::kRelaxed;
  Compare compare = Compare::kEq;
  Rounding rounding = Rounding::kNone;
  Moves moves = Moves::kWhole;
  bool non_coherent = false;
  bool has_result = true;
  std::uint8_t mode = 0;  // which of an opcode's forms: prmt, shfl, vote, combine of setp
  std::int32_t guard = -1;
  std::uint32_t target = 0;
  std::uint32_t dst[4] = {};
  std::uint32_t src[6] = {};
  std::int64_t offset = 0;
  std::uint32_t meeting = 0;  // equal for warp operations that meet
};

// Rows that the machine fills.
// clang-format off
enum class Special : std::uint8_t {
  kTidX, kTidY, kTidZ, kNtidX, kNtidY, kNtidZ, kCtaidX, kCtaidY, kCtaidZ, kNctaidX, kNctaidY, kNctaidZ,
  kLaneid, kWarpid, kNwarpid, kLanemaskEq, kLanemaskLe, kLanemaskLt, kLanemaskGe, kLanemaskGt,
  kDynamicSmem,
};
// clang-format on

struct Constant {
  std::uint32_t row;
  bool wide;
  std::uint64_t bits;
};

struct Program {
  Kernel kernel;
  std::vector<std::string> files;
  std::vector<Location> locations;
  std::vector<Instr> code;
  std::vector<Constant> constants;
  std::vector<std::pair<Special, std::uint32_t>> specials;
  std::vector<std::uint32_t> parameter_offsets, parameter_bytes;
  std::uint32_t parameters_size = 0, shared_size = 0, local_size = 0, dynamic_shared = 0;
  std::uint32_t words = 0, predicates = 0;  // of a warp's register files
  std::uint32_t true_predicate = 0;
  std::vector<std::uint64_t> executed;  // warp instructions, by instruction
  std::uint64_t launches = 0;

  // file:line; where a function of CUDA's or C++'s headers was inlined, the line that calls it.
  std::string place(std::uint32_t pc) const;
  std::string text(std::uint32_t pc) const;  // the statement's opcode
};

// Variables of the module by name, with where they lie.
using Globals = std::unordered_map<std::string, std::uint64_t>;
Program decode(Kernel const& kernel, Module const& module, Globals const& globals);

// --- What decoding asks of the parts that execute --------------------------------------------------------------------

// An opcode's words with questions about them.
class Opcode {
 public:
  explicit Opcode(std::vector<std::string> const& words) : words_(words) {}
  std::string const& name() const { return words_[0]; }
  bool has(char const* word) const;
  bool has_type() const { return is_type(words_.back()); }
  Type type(unsigned from_end = 0) const { return type_of(words_[words_.size() - 1 - from_end]); }
  std::vector<std::string> const& words() const { return words_; }
  std::string text() const;

 private:
  std::vector<std::string> const& words_;
};

// What operands are: one letter each, destinations first.
//   d destination, p predicate destination, q predicate destination after '|' (may be absent)
//   s source of type `source`, t source of type `destination`, i source of 32 bits, P predicate source
//   n a constant number, unchanged: a barrier's, which must be 0
//   D, S destination or source that may be a list {..}; a address
struct Form {
  Execute execute = nullptr;
  std::string operands;
  Type destination = Type::kB32, source = Type::kB32;
};

// Each fills in `instr` what the opcode says and gives its form; execute is null where the opcode is not its own.
Form find_arithmetic(Opcode const& opcode, Instr& instr);
Form find_bits(Opcode const& opcode, Instr& instr);
Form find_conversion(Opcode const& opcode, Instr& instr);
Form find_access(Opcode const& opcode, Instr& instr);
Form find_meeting(Opcode const& opcode, Instr& instr);

}  // namespace ptxsim
