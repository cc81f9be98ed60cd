#include "signature.h"

#include <cctype>
#include <sstream>

#include "report.h"

namespace panrt::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::TensorFormat;

// A sum of terms, each a factor times letters: "4A" is {{4, {A}}}, "C+1" is {{1, {C}}, {1, {}}}.
struct Term {
  std::int64_t factor = 1;
  std::vector<std::string> letters;
};
using Word = std::vector<Term>;

Word parse_word(std::string const& text) {
  Word word;
  std::istringstream terms(text);
  for (std::string term_text; std::getline(terms, term_text, '+');) {
    Term term;
    std::istringstream atoms(term_text);
    for (std::string atom; std::getline(atoms, atom, '*');) {
      std::size_t digits = 0;
      while (digits < atom.size() && std::isdigit(static_cast<unsigned char>(atom[digits])) != 0) ++digits;
      if (digits > 0) term.factor *= std::stoll(atom.substr(0, digits));
      if (digits < atom.size()) term.letters.push_back(atom.substr(digits));
    }
    word.push_back(term);
  }
  return word;
}

std::vector<std::string> words_of(std::string const& legend) {
  std::istringstream stream(legend);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string shape_text(Dims const& dims) {
  std::string text = "(";
  for (std::int32_t i = 0; i < dims.nbDims; ++i) {
    text += (i > 0 ? ", " : "") + (dims.d[i] < 0 ? std::string("?") : std::to_string(dims.d[i]));
  }
  return text + ")";
}

[[noreturn]] void refuse_shape(Tensor const& tensor, Dims const& found, Sizes const& sizes) {
  std::string expected = "(", known;
  std::map<std::string, bool> mentioned;
  std::vector<std::string> const words = words_of(tensor.legend);
  for (std::size_t i = 0; i < words.size(); ++i) {
    expected += (i > 0 ? ", " : "") + words[i];
    for (Term const& term : parse_word(words[i])) {
      for (std::string const& letter : term.letters) {
        auto const size = sizes.find(letter);
        if (size == sizes.end() || size->second < 0 || mentioned[letter]) continue;
        mentioned[letter] = true;
        known += (known.empty() ? " with " : ", ") + letter + " = " + std::to_string(size->second);
      }
    }
  }
  throw OpError("input " + tensor.name + ": expected shape " + expected + ")" + known + ", got " + shape_text(found));
}

char const* type_name(DataType type) {
  switch (type) {
    case DataType::kFLOAT:
      return "float32";
    case DataType::kHALF:
      return "float16";
    case DataType::kINT8:
      return "int8";
    case DataType::kINT32:
      return "int32";
    case DataType::kBOOL:
      return "bool";
    case DataType::kUINT8:
      return "uint8";
    case DataType::kBF16:
      return "bfloat16";
    case DataType::kINT64:
      return "int64";
    default:
      return "another type";
  }
}

bool is_type_of(Kind kind, DataType type) {
  switch (kind) {
    case Kind::kFloat32:
      return type == DataType::kFLOAT;
    case Kind::kInt32:
      return type == DataType::kINT32;
    case Kind::kFloating:
    case Kind::kFeatures:
      return type == DataType::kFLOAT || type == DataType::kHALF;
  }
  return false;
}

char const* expected_type(Kind kind) {
  switch (kind) {
    case Kind::kFloat32:
      return "float32";
    case Kind::kInt32:
      return "int32";
    case Kind::kFloating:
    case Kind::kFeatures:
      return "float32 or float16";
  }
  return "";
}

// Channels last lets a thread load 16 bytes of neighbouring channels at once; float16 comes in groups of 8 channels.
bool is_feature_format(DataType type, TensorFormat format) {
  return format == TensorFormat::kLINEAR || (type == DataType::kHALF && format == TensorFormat::kHWC8) ||
         (type == DataType::kFLOAT && format == TensorFormat::kHWC);
}

nvinfer1::IDimensionExpr const* expression(Word const& word,
                                           std::map<std::string, nvinfer1::IDimensionExpr const*> const& letters,
                                           nvinfer1::IExprBuilder& builder) {
  nvinfer1::IDimensionExpr const* sum = nullptr;
  for (Term const& term : word) {
    nvinfer1::IDimensionExpr const* product = nullptr;
    if (term.factor != 1 || term.letters.empty()) product = builder.constant(term.factor);
    for (std::string const& letter : term.letters) {
      nvinfer1::IDimensionExpr const* const size = letters.at(letter);
      product = product == nullptr ? size : builder.operation(nvinfer1::DimensionOperation::kPROD, *product, *size);
    }
    sum = sum == nullptr ? product : builder.operation(nvinfer1::DimensionOperation::kSUM, *sum, *product);
  }
  return sum;
}

}  // namespace

void Signature::inputs_per_level(std::size_t levels, char const* name, char const* legend, Kind kind) {
  for (std::size_t i = 0; i < levels; ++i) {
    std::string const level = std::to_string(i);
    std::string own;
    for (std::string const& word : words_of(legend)) {
      own += (own.empty() ? "" : " ") + word + (word == "H" || word == "W" ? level : "");
    }
    inputs.push_back({std::string(name) + "_" + level, own, kind});
  }
}

void Signature::check_counts(std::int32_t input_count, std::int32_t output_count) const {
  auto const check = [](char const* what, std::vector<Tensor> const& expected, std::int32_t found) {
    if (found >= 0 && static_cast<std::size_t>(found) == expected.size()) return;
    std::string names;
    for (Tensor const& tensor : expected) names += (names.empty() ? "" : ", ") + tensor.name;
    throw OpError("expected " + std::to_string(expected.size()) + " " + what + " (" + names + "), got " +
                  std::to_string(found));
  };
  check("inputs", inputs, input_count);
  check("outputs", outputs, output_count);
}

Sizes Signature::bind(std::vector<Dims> const& shapes) const {
  check_counts(static_cast<std::int32_t>(shapes.size()), static_cast<std::int32_t>(outputs.size()));
  Sizes sizes = constants;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::vector<std::string> const words = words_of(inputs[i].legend);
    Dims const& dims = shapes[i];
    if (static_cast<std::size_t>(dims.nbDims) != words.size()) refuse_shape(inputs[i], dims, sizes);
    for (std::size_t axis = 0; axis < words.size(); ++axis) {
      std::int64_t const found = dims.d[axis];
      Term term;  // the letter's, with `offset` the sum of what has none
      std::int64_t offset = 0;
      for (Term const& part : parse_word(words[axis])) {
        if (part.letters.empty()) {
          offset += part.factor;
        } else {
          term = part;
        }
      }
      if (term.letters.empty()) {
        if (found >= 0 && found != offset) refuse_shape(inputs[i], dims, sizes);
        continue;
      }
      auto const [size, is_new] = sizes.try_emplace(term.letters[0], -1);
      if (found < 0) continue;
      if (found < offset || (found - offset) % term.factor != 0) refuse_shape(inputs[i], dims, sizes);
      std::int64_t const value = (found - offset) / term.factor;
      if (size->second >= 0 && size->second != value) refuse_shape(inputs[i], dims, sizes);
      size->second = value;
    }
  }
  return sizes;
}

void Signature::output_shapes(nvinfer1::DimsExprs const* input_dims, std::int32_t input_count,
                              nvinfer1::DimsExprs* output_dims, std::int32_t output_count,
                              nvinfer1::IExprBuilder& builder) const {
  check_counts(input_count, output_count);
  std::vector<Dims> shapes(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes[i].nbDims = input_dims[i].nbDims;
    for (std::int32_t axis = 0; axis < input_dims[i].nbDims; ++axis) {
      nvinfer1::IDimensionExpr const* const size = input_dims[i].d[axis];
      shapes[i].d[axis] = size->isConstant() ? size->getConstantValue() : -1;
    }
  }
  Sizes const sizes = bind(shapes);

  std::map<std::string, nvinfer1::IDimensionExpr const*> letters;
  for (auto const& [letter, size] : sizes) {
    if (size >= 0) letters[letter] = builder.constant(size);
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {  // what is not constant is taken from the first input that has it
    std::vector<std::string> const words = words_of(inputs[i].legend);
    for (std::size_t axis = 0; axis < words.size(); ++axis) {
      Word const word = parse_word(words[axis]);
      if (word.size() == 1 && word[0].factor == 1 && word[0].letters.size() == 1) {
        letters.try_emplace(word[0].letters[0], input_dims[i].d[axis]);
      }
    }
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    std::vector<std::string> const words = words_of(outputs[i].legend);
    output_dims[i].nbDims = static_cast<std::int32_t>(words.size());
    for (std::size_t axis = 0; axis < words.size(); ++axis) {
      output_dims[i].d[axis] = expression(parse_word(words[axis]), letters, builder);
    }
  }
}

void Signature::output_types(DataType const* input_types, std::int32_t input_count, DataType* output_types,
                             std::int32_t output_count) const {
  check_counts(input_count, output_count);
  DataType features = DataType::kFLOAT;
  Tensor const* first = nullptr;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!is_type_of(inputs[i].kind, input_types[i])) {
      throw OpError("input " + inputs[i].name + ": expected " + expected_type(inputs[i].kind) + ", got " +
                    type_name(input_types[i]));
    }
    if (inputs[i].kind != Kind::kFeatures) continue;
    if (first != nullptr && input_types[i] != features) {
      throw OpError("input " + inputs[i].name + ": expected " + type_name(features) + " like " + first->name +
                    ", got " + type_name(input_types[i]));
    }
    first = &inputs[i];
    features = input_types[i];
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    output_types[i] = outputs[i].kind == Kind::kInt32      ? DataType::kINT32
                      : outputs[i].kind == Kind::kFeatures ? features
                                                           : DataType::kFLOAT;
  }
}

bool Signature::supports(std::int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                         std::int32_t input_count, std::int32_t output_count) const {
  check_counts(input_count, output_count);
  auto const at = [this](std::int32_t i) -> Tensor const& {
    auto const index = static_cast<std::size_t>(i);
    return index < inputs.size() ? inputs[index] : outputs[index - inputs.size()];
  };
  nvinfer1::PluginTensorDesc const& found = tensors[position].desc;
  Kind const kind = at(position).kind;
  if (!is_type_of(kind, found.type)) return false;
  if (kind != Kind::kFeatures) return found.format == TensorFormat::kLINEAR;
  for (std::int32_t i = 0; i < position; ++i) {
    if (at(i).kind != Kind::kFeatures) continue;
    return found.type == tensors[i].desc.type && found.format == tensors[i].desc.format;
  }
  return is_feature_format(found.type, found.format);
}

std::vector<Dims> dims_of(nvinfer1::PluginTensorDesc const* tensors, std::int32_t count) {
  std::vector<Dims> dims;
  for (std::int32_t i = 0; i < count; ++i) dims.push_back(tensors[i].dims);
  return dims;
}

}  // namespace panrt::tensorrt
